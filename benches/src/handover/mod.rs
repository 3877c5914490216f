//! Upgrades under load: a server is replaced again and again while the checker watches its streams.
//!
//! | module | what lives there |
//! |---|---|
//! | [`scenario`] | the named scenarios and their figures |
//! | [`subject`] | the server: its start, its verbs, its end |
//! | [`sample`] | descriptors, threads and memory of its processes |
//! | [`report`] | one line an upgrade, and what all of it comes to |

pub mod report;
pub mod sample;
pub mod scenario;
pub mod subject;

use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::checker::Running;
use report::{Outcome, Round};
use scenario::Plan;
use subject::{Places, Subject};

/// A window begins this long before an upgrade and ends as long after it: all that was on its way
/// at the end of the pause has come by then.
const MARGIN: Duration = Duration::from_millis(300);

/// Runs one scenario: prints a line an upgrade and a summary. Returns whether all is as it must be.
pub fn run(plan: &Plan, places: &Places) -> Result<bool> {
    let mut subject = Subject::start(plan, places)?;
    println!("\n{}: {plan}", plan.name);
    let mut outcome = Outcome::new(subject.samples()?);
    let streams = Running::start(&plan.load(subject.address))?;
    thread::sleep(plan.duration);

    outcome.begin(plan.upgrades, subject.samples()?);
    for number in 1..=plan.upgrades {
        match upgrade(number, &mut subject, &streams, plan) {
            Ok(Some(round)) => {
                println!("{round}");
                let goes_on = round.is_upgraded();
                outcome.add(round);
                if !goes_on {
                    break;
                }
            }
            // The streams have ended; finishing them says why.
            Ok(None) => break,
            Err(error) => {
                outcome.problem(format!("upgrade {number}: {error:#}"));
                break;
            }
        }
        thread::sleep(plan.interval.saturating_sub(2 * MARGIN));
    }

    outcome.end(plan, streams.finish()?);
    if let Err(error) = subject.stop() {
        outcome.problem(format!("the end: {error:#}"));
    }
    println!("{outcome}");
    if !outcome.is_clean() {
        println!("last lines of the server's log:\n{}", subject.log_tail());
    }
    Ok(outcome.is_clean())
}

/// One upgrade, and the window around it.
fn upgrade(
    number: u32,
    subject: &mut Subject,
    streams: &Running,
    plan: &Plan,
) -> Result<Option<Round>> {
    let pid_before = subject.server_pid()?;
    streams.open_window();
    thread::sleep(MARGIN);
    let upgrade = subject.upgrade(plan.patience)?;
    thread::sleep(MARGIN);
    let Some(window) = streams.close_window() else {
        return Ok(None);
    };
    let pid_after = subject.server_pid()?;
    let samples = subject.samples()?;
    Ok(Some(Round { number, upgrade, window, samples, replaced: pid_before != pid_after }))
}
