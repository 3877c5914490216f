//! What one side alone shows; the rest is in `handover/tests.rs`.

use super::*;
use crate::handover::wire::{FORMAT, Formats};

fn hello() -> Hello {
    let formats = Formats { first: 1, last: FORMAT };
    Hello {
        protocol: PROTOCOL,
        formats_read: formats,
        formats_written: formats,
        build: String::new(),
        pid: 1,
    }
}

fn machine(dry_run: bool, events: impl IntoIterator<Item = Event>) -> Machine {
    let mut machine = Machine::new(1);
    machine.handle(Event::Start { dry_run });
    for event in events {
        machine.handle(event);
    }
    machine
}

fn said(message: ToPredecessor) -> Event {
    Event::Message(message)
}

fn greeted() -> Event {
    said(ToPredecessor::Hello(hello()))
}

fn ready() -> Event {
    said(ToPredecessor::Ready { workers: 1, descriptors_free: 9 })
}

fn until_saving() -> [Event; 6] {
    let settled = Event::WorkerSettled { idle: true };
    let saved = Event::WorkerSaved { connections: 3 };
    [greeted(), ready(), Event::WorkerCopied, Event::WorkerFrozen, settled, saved]
}

/// The reason for which `event` makes the machine call it off.
#[track_caller]
fn called_off(mut machine: Machine, event: Event) -> String {
    assert_eq!(machine.handle(event), [Action::Try(Move::Revoke)]);
    let actions = machine.handle(Event::Tried { attempt: Move::Revoke, won: true });
    let abort = actions.into_iter().find_map(|action| match action {
        Action::Send(Tell::Abort { reason }) => Some(reason),
        _ => None,
    });
    abort.expect("the successor is told")
}

#[test]
fn the_newest_common_format_is_announced() {
    let mut machine = machine(false, []);
    let read = Formats { first: FORMAT, last: FORMAT + 7 };
    let newer = Hello { formats_read: read, ..hello() };
    let actions = machine.handle(said(ToPredecessor::Hello(newer)));
    assert_eq!(actions, [Action::Send(Tell::Prepare { format: FORMAT })]);
}

#[test]
fn builds_that_do_not_understand_each_other_part() {
    let other = Hello { protocol: PROTOCOL + 1, ..hello() };
    let reason = called_off(machine(false, []), said(ToPredecessor::Hello(other)));
    assert_eq!(
        reason,
        "the successor speaks version 2 of the handover's protocol, and this build 1"
    );
    let read = Formats { first: FORMAT + 1, last: FORMAT + 2 };
    let newer = Hello { formats_read: read, ..hello() };
    let reason = called_off(machine(false, []), said(ToPredecessor::Hello(newer)));
    assert_eq!(reason, "the successor reads snapshots of format 2 to 3, and this build writes 1");
}

#[test]
fn no_connection_may_be_missing() {
    let adopted = said(ToPredecessor::Adopted { connections: 2 });
    let refused = vec![Refused { worker: 0, key: 1, reason: String::new() }];
    let refused = said(ToPredecessor::NotAdopted { refused });

    let reason = called_off(machine(false, until_saving()), adopted.clone());
    assert!(reason.starts_with("3 connections were sent"), "{reason}");
    let mut complete = machine(false, until_saving().into_iter().chain([refused]));
    assert!(complete.handle(adopted).contains(&Action::Try(Move::Offer)));
}

#[test]
fn what_is_out_of_order_calls_it_off() {
    for (before, event, name) in [
        (vec![], ready(), "READY"),
        (vec![greeted()], greeted(), "HELLO"),
        (vec![greeted()], said(ToPredecessor::Active { at_ns: 0 }), "ACTIVE"),
        (vec![greeted(), ready()], said(ToPredecessor::Adopted { connections: 0 }), "ADOPTED"),
    ] {
        let reason = called_off(machine(false, before), event);
        assert_eq!(reason, format!("the successor sent {name} out of order"));
    }
    let none = ToPredecessor::Ready { workers: 0, descriptors_free: 9 };
    let reason = called_off(machine(false, [greeted()]), said(none));
    assert_eq!(reason, "the successor has no workers");
}

#[test]
fn a_timer_of_an_earlier_step_is_of_no_account() {
    let mut copying = machine(false, [greeted(), ready()]);
    assert_eq!(copying.handle(Event::TimedOut(Step::Prepare)), []);
    let reason = called_off(copying, Event::TimedOut(Step::Copy));
    assert_eq!(reason, "the step copy took longer than 60 s");
}

#[test]
fn a_dry_run_asks_for_states_alone() {
    let mut machine = machine(true, [greeted()]);
    let actions = machine.handle(ready());
    let first = [Action::Progress(Step::State), Action::Timer(Step::State, Step::State.time_max())];
    let then = [Action::Send(Tell::Lanes { count: 1 }), Action::Ask(Order::Save)];
    assert_eq!(actions, [first, then].concat());
}

#[test]
fn settling_goes_on_until_all_are_idle_in_one_round() {
    let mut machine = Machine::new(2);
    machine.handle(Event::Start { dry_run: false });
    let copied = [Event::WorkerCopied, Event::WorkerCopied];
    let frozen = [Event::WorkerFrozen, Event::WorkerFrozen];
    for event in [greeted(), ready()].into_iter().chain(copied).chain(frozen) {
        machine.handle(event);
    }
    for round in [[false, true], [true, false], [false, false]] {
        let [first, second] = round.map(|idle| Event::WorkerSettled { idle });
        assert_eq!(machine.handle(first), []);
        assert_eq!(machine.handle(second), [Action::Ask(Order::Settle)], "{round:?}");
    }
    assert_eq!(machine.handle(Event::WorkerSettled { idle: true }), []);
    let actions = machine.handle(Event::WorkerSettled { idle: true });
    assert_eq!(actions.last(), Some(&Action::Ask(Order::Save)));
}

#[test]
fn what_is_taken_is_given_up_at_the_latest_when_the_successor_is_gone() {
    let adopted = said(ToPredecessor::Adopted { connections: 3 });
    let until_offering = || machine(false, until_saving().into_iter().chain([adopted.clone()]));
    let mut lost_offer = until_offering();
    lost_offer.handle(Event::Tried { attempt: Move::Offer, won: false });
    let mut lost_revocation = until_offering();
    lost_revocation.handle(Event::Tried { attempt: Move::Offer, won: true });
    lost_revocation.handle(Event::Abort { reason: "stop".to_owned() });
    lost_revocation.handle(Event::Tried { attempt: Move::Revoke, won: false });
    for taken in [lost_offer, lost_revocation] {
        let mut waiting = taken.clone();
        assert_eq!(waiting.handle(Event::Abort { reason: "stop".to_owned() }), []);
        for (event, active) in [
            (said(ToPredecessor::Active { at_ns: 0 }), true),
            (Event::ChannelEnded, false),
            (Event::TimedOut(Step::Offer), false),
        ] {
            let outcome = Outcome::Moved { refused: Vec::new(), active };
            let expected = [
                Action::Ask(Order::Release(Vec::new())),
                Action::Progress(Step::Done),
                Action::Done(outcome),
            ];
            assert_eq!(taken.clone().handle(event), expected);
        }
    }
}

#[test]
fn a_successor_that_stays_is_ended() {
    let mut machine = machine(false, [greeted(), ready()]);
    machine.handle(Event::Abort { reason: "stop".to_owned() });
    let actions = machine.handle(Event::Tried { attempt: Move::Revoke, won: true });
    assert_eq!(actions[0], Action::Ask(Order::Thaw), "serving comes first");
    let outcome = Outcome::Aborted { reason: "stop".to_owned() };
    assert_eq!(
        machine.handle(Event::TimedOut(Step::Done)),
        [Action::Kill, Action::Ask(Order::CopiesGone), Action::Done(outcome)]
    );
    assert!(machine.is_over());
}
