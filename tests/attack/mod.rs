//! Attacks at a small size, on the real binary. `make soak` runs the same at full size.

mod scenarios;
use std::time::Duration;

use crate::support::{self, Life};
use scenarios::Scarcity;

#[test]
fn half_open_handshakes_time_out_and_cost_little() {
    scenarios::half_open(300, 0, Duration::from_secs(2));
}

#[test]
fn half_open_handshakes_with_long_heads_cost_no_more_than_twice_their_limit() {
    scenarios::half_open(100, 15 * support::KIB, Duration::from_secs(2));
}

#[test]
fn a_reader_that_never_reads_is_not_read_from() {
    scenarios::reader_that_never_reads(1_500);
}

#[test]
fn a_slow_member_is_closed_and_the_others_go_on() {
    scenarios::slow_member(600);
}

#[test]
fn endless_fragments_are_refused() {
    scenarios::endless_fragments();
}

#[test]
fn ping_floods_are_cut_off_or_cost_nothing() {
    scenarios::ping_flood(16 * support::MIB);
}

#[test]
fn deflate_bombs_are_defused() {
    scenarios::deflate_bombs(3);
}

#[test]
fn resets_in_every_state_leave_nothing_behind() {
    scenarios::resets(5);
}

#[test]
fn a_server_without_descriptors_serves_on_and_recovers() {
    scenarios::descriptors_used_up(8, 24);
}

#[test]
fn ends_without_close_and_declared_lengths_cost_nothing() {
    scenarios::ends_and_lengths(100);
}

/// As a user without privileges, with all the descriptors that visitors need.
const LOWLY: Life = Life { files: None, ..Life::LOWLY };

#[test]
fn nobody_is_reset_by_a_drain() {
    scenarios::drains(1, Life::ALONE, false);
    scenarios::drains(1, LOWLY, false);
}

#[test]
fn nobody_is_refused_by_a_drain_beside_another_server() {
    scenarios::drains(1, Life::ALONE, true);
    scenarios::drains(1, LOWLY, true);
}

#[test]
fn rooms_come_and_go() {
    scenarios::rooms_come_and_go(200, 3);
}

#[test]
fn the_flood_of_one_starves_nobody() {
    scenarios::flood_of_one(20);
}

#[test]
fn a_flood_between_workers_keeps_order_and_deadlocks_nobody() {
    scenarios::mailbox_flood(12, 20_000);
}

#[test]
fn hoarders_cost_nobody_else_anything() {
    scenarios::hoarders(200, 1, Scarcity::Key(32 * support::MIB), 256 * support::KIB);
}

#[test]
fn hoarders_within_a_small_address_space_do_not_end_the_server() {
    scenarios::hoarders(300, 2, Scarcity::AddressSpace(600 * support::MIB), 256 * support::KIB);
}
