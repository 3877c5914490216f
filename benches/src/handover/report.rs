//! What upgrades have come to: one line each, and a summary.

use std::fmt;

use super::sample::Sample;
use super::scenario::Plan;
use super::subject::{Samples, Upgrade};
use crate::checker::{Totals, WindowFigures};

const MIB: u64 = 1024 * 1024;
/// Descriptors that a process may have more after all upgrades than after the first: one that is
/// about to be closed, and no leak that grows.
const DESCRIPTORS_SLACK: u64 = 4;
/// Memory that a process may have more: a tenth, and the spare pages of an allocator. A leak of a
/// connection's state at each upgrade is far above.
const MEMORY_SLACK_BYTES: u64 = 6 * MIB;

/// The steps of a pause: their names, and the server's fields, which say microseconds.
const STEPS: [(&str, &str); 5] = [
    ("freeze", "freeze_us"),
    ("settle", "settle_us"),
    ("save", "save_us"),
    ("load", "load_us"),
    ("take", "take_us"),
];

/// One upgrade.
#[derive(Debug, Clone)]
pub struct Round {
    /// From 1.
    pub number: u32,
    /// What `steadfast upgrade` said.
    pub upgrade: Upgrade,
    /// The time around it.
    pub window: WindowFigures,
    /// The server's processes after it.
    pub samples: Samples,
    /// Whether another process serves than before.
    pub replaced: bool,
}

impl Round {
    /// Whether the verb ended well and another process serves.
    pub fn is_upgraded(&self) -> bool {
        self.upgrade.status.success() && self.replaced
    }

    fn problem(&self) -> Option<String> {
        let number = self.number;
        let Upgrade { status, complaint, answer, .. } = &self.upgrade;
        if !status.success() {
            let answer = answer.as_ref().map(ToString::to_string).unwrap_or_default();
            return Some(format!("upgrade {number}: {status}: {answer} {}", complaint.trim()));
        }
        if !self.replaced {
            return Some(format!("upgrade {number}: the same process serves as before"));
        }
        let refused = self.upgrade.refused().filter(|refused| *refused > 0);
        refused.map(|refused| format!("upgrade {number}: {refused} connections refused"))
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, upgrade, window, samples, .. } = self;
        let word = upgrade.word("outcome").unwrap_or(match upgrade.status.success() {
            true => "done",
            false => "failed",
        });
        let text = |figure: Option<u64>| figure.map_or("-".to_owned(), |count| count.to_string());
        let total_ms = upgrade.figure("total_ms").unwrap_or(upgrade.took.as_secs_f64() * 1e3);
        write!(
            f,
            "{number:>4} {word:<9}{:>7}{:>5}{:>9}{total_ms:>9.0}{:>9.1}{:>9.1}{:>7}",
            text(upgrade.figure("connections").map(|count| count as u64)),
            text(upgrade.refused()),
            upgrade.pause_ms().map_or("-".to_owned(), |pause| format!("{pause:.2}")),
            ms(window.span.delays.max()),
            ms(window.span.silence_max),
            window.faults.total() + window.visits.faults(),
        )?;
        let Sample { descriptors, threads, memory_bytes } = samples.server;
        write!(
            f,
            "{descriptors:>7}{threads:>4}{:>8.1}{:>9}{:>9.1}",
            mib(memory_bytes),
            upgrade.peak.descriptors,
            mib(upgrade.peak.memory_bytes),
        )?;
        let steps: Vec<String> = STEPS
            .iter()
            .map(|(_, field)| upgrade.figure(field).map_or("-".to_owned(), |us| format!("{us:.0}")))
            .collect();
        write!(f, "  {}", steps.join(" "))
    }
}

/// A scenario's upgrades so far, and what is wrong.
#[derive(Debug)]
pub struct Outcome {
    at_start: Samples,
    rounds: Vec<Round>,
    totals: Option<Totals>,
    problems: Vec<String>,
}

impl Outcome {
    /// Before the streams began, the server had this.
    pub fn new(at_start: Samples) -> Self {
        Self { at_start, rounds: Vec::new(), totals: None, problems: Vec::new() }
    }

    /// Prints the table's head. With its streams, before the first upgrade, the server has this.
    pub fn begin(&mut self, upgrades: u32, samples: Samples) {
        println!("  server before streams: {}", line(&self.at_start));
        println!("  server with streams:   {}", line(&samples));
        self.at_start = samples;
        if upgrades > 0 {
            println!(
                "   # outcome    conns  ref    pause    total    worst  silence faults    fds thr     MiB peak fds peak MiB  \
                 freeze settle save load take\n\
                 {:26}{:>9}{:>9}{:>9}{:>9}{:46}µs",
                "", "ms", "ms", "echo ms", "ms", ""
            );
        }
    }

    /// One upgrade more.
    pub fn add(&mut self, round: Round) {
        self.problems.extend(round.problem());
        self.rounds.push(round);
    }

    /// Something else is wrong.
    pub fn problem(&mut self, text: String) {
        self.problems.push(text);
    }

    /// The streams have ended.
    pub fn end(&mut self, plan: &Plan, totals: Totals) {
        if totals.faults.total() > 0 {
            self.problems.push(format!("streams: {}", totals.faults));
        }
        if totals.visits.faults() > 0 {
            self.problems.push(format!("visitors: {}", totals.visits));
        }
        if totals.received == 0 && totals.visits.complete == 0 {
            self.problems.push("nothing was checked".to_owned());
        }
        if self.rounds.len() < plan.upgrades as usize {
            self.problems.push(format!("{} of {} upgrades", self.rounds.len(), plan.upgrades));
        }
        if plan.is_steady() {
            self.problems.extend(growth(&self.rounds));
        }
        let queued_min = plan.queued_bytes_min();
        let most = self.rounds.iter().map(|round| round.samples.server.memory_bytes).max();
        if let Some(most) = most.filter(|most| *most < queued_min) {
            let (most, queued_min) = (mib(most), mib(queued_min));
            let text =
                format!("the server had {most:.1} MiB at most, and no {queued_min:.1} in queues");
            self.problems.push(text);
        }
        self.problems.extend(totals.examples.iter().cloned());
        self.totals = Some(totals);
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty() && self.totals.is_some()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pauses = sorted(self.rounds.iter().filter_map(|round| round.upgrade.pause_ms()));
        if let (Some(middle), Some(most)) = (pauses.get(pauses.len() / 2), pauses.last()) {
            let p99 = pauses[(pauses.len() * 99).div_ceil(100) - 1];
            writeln!(f, "  pause: median {middle:.2} ms, p99 {p99:.2} ms, max {most:.2} ms")?;
        }
        let steps: Vec<String> = STEPS
            .iter()
            .filter_map(|(name, field)| {
                let us = sorted(self.rounds.iter().filter_map(|round| round.upgrade.figure(field)));
                us.get(us.len() / 2).map(|middle| format!("{name} {middle:.0}"))
            })
            .collect();
        if !steps.is_empty() {
            writeln!(f, "  its steps, medians: {} µs", steps.join(", "))?;
        }
        let took = |round: &Round| round.upgrade.took.as_secs_f64() * 1e3;
        let took = sorted(self.rounds.iter().map(took));
        if let (Some(middle), Some(most)) = (took.get(took.len() / 2), took.last()) {
            let worst = self.rounds.iter().map(|round| round.window.span.delays.max()).max();
            writeln!(
                f,
                "  an upgrade, from command to answer: median {middle:.0} ms, max {most:.0} ms; \
                 worst echo around one {:.1} ms",
                ms(worst.unwrap_or(0))
            )?;
        }
        if let Some(totals) = &self.totals {
            let Totals { faults, visits, sent, received, span, lag_max, .. } = totals;
            writeln!(f, "  streams: sent {sent}, received {received}; {faults}")?;
            writeln!(
                f,
                "  delay: p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms; longest silence {:.1} ms; \
                 the checker was at most {:.1} ms late",
                ms(span.delays.quantile(0.5)),
                ms(span.delays.quantile(0.99)),
                ms(span.delays.max()),
                ms(span.silence_max),
                ms(*lag_max)
            )?;
            if visits.complete + visits.faults() > 0 {
                let slowest = ms(visits.delay_max);
                writeln!(f, "  visitors: {visits}; slowest from connect to echo {slowest:.1} ms")?;
            }
        }
        for problem in &self.problems {
            writeln!(f, "  WRONG: {problem}")?;
        }
        write!(f, "  {}", if self.is_clean() { "clean" } else { "NOT CLEAN" })
    }
}

/// What has grown from the first upgrade on: descriptors, threads or memory that nobody has freed.
fn growth(rounds: &[Round]) -> Vec<String> {
    let [first, .., last] = rounds else {
        return Vec::new();
    };
    let mut problems = compare("server", first.samples.server, last.samples.server);
    if let (Some(first), Some(last)) = (first.samples.supervisor, last.samples.supervisor) {
        problems.extend(compare("supervisor", first, last));
    }
    problems
}

fn compare(who: &str, first: Sample, last: Sample) -> Vec<String> {
    let memory_max = first.memory_bytes + first.memory_bytes / 10 + MEMORY_SLACK_BYTES;
    let checks = [
        ("descriptors", first.descriptors, last.descriptors, first.descriptors + DESCRIPTORS_SLACK),
        ("threads", first.threads, last.threads, first.threads),
        ("bytes of memory", first.memory_bytes, last.memory_bytes, memory_max),
    ];
    let grown = checks.into_iter().filter(|(_, _, last, most)| last > most);
    grown
        .map(|(what, first, last, _)| format!("the {who}'s {what}: {first}, then {last}"))
        .collect()
}

fn line(samples: &Samples) -> String {
    let one = |sample: &Sample| {
        let Sample { descriptors, threads, memory_bytes } = sample;
        format!("{descriptors} fds, {threads} threads, {:.1} MiB", mib(*memory_bytes))
    };
    match &samples.supervisor {
        Some(supervisor) => format!("{}; supervisor: {}", one(&samples.server), one(supervisor)),
        None => one(&samples.server),
    }
}

fn sorted(figures: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures
}

fn ms(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;
    use std::time::Duration;

    use super::*;
    use crate::checker::figures::Span;
    use crate::checker::{Faults, Visits};
    use crate::handover::scenario::{Changes, Scenario};

    const SAMPLE: Sample = Sample { descriptors: 100, threads: 3, memory_bytes: 10 * MIB };
    const SAMPLES: Samples = Samples { server: SAMPLE, supervisor: Some(SAMPLE) };

    fn round(number: u32) -> Round {
        Round {
            number,
            upgrade: Upgrade {
                status: ExitStatus::from_raw(0),
                answer: Some(serde_json::json!({ "outcome": "moved", "refused": 0 })),
                complaint: String::new(),
                took: Duration::from_millis(20),
                peak: SAMPLE,
            },
            window: WindowFigures {
                span: Span::default(),
                faults: Faults::default(),
                visits: Visits::default(),
            },
            samples: SAMPLES,
            replaced: true,
        }
    }

    fn totals() -> Totals {
        Totals {
            faults: Faults::default(),
            visits: Visits::default(),
            sent: 10,
            received: 10,
            span: Span::default(),
            lag_max: 0,
            examples: Vec::new(),
        }
    }

    fn problems(second: Round, totals: Totals) -> Vec<String> {
        problems_of(Scenario::Basic, second, totals)
    }

    /// The problems of two upgrades, the second as given, and these totals.
    fn problems_of(scenario: Scenario, second: Round, totals: Totals) -> Vec<String> {
        let mut plan = scenario.plan();
        plan.change(&Changes { upgrades: Some(2), ..Changes::default() });
        let mut outcome = Outcome::new(SAMPLES);
        outcome.add(round(1));
        outcome.add(second);
        outcome.end(&plan, totals);
        assert_eq!(outcome.is_clean(), outcome.problems.is_empty());
        assert_eq!(outcome.to_string().contains("NOT CLEAN"), !outcome.is_clean());
        outcome.problems
    }

    fn problem(second: Round, totals: Totals) -> String {
        let problems = problems(second, totals);
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].clone()
    }

    #[test]
    fn without_a_problem_it_is_clean() {
        assert_eq!(problems(round(2), totals()), [""; 0]);
    }

    #[test]
    fn an_upgrade_that_failed_or_did_nothing_is_a_problem() {
        let mut failed = round(2);
        failed.upgrade.status = ExitStatus::from_raw(256);
        failed.upgrade.complaint = "no such file".to_owned();
        assert!(!failed.is_upgraded());
        assert!(problem(failed, totals()).contains("no such file"));

        let same = Round { replaced: false, ..round(2) };
        assert!(!same.is_upgraded());
        assert!(problem(same, totals()).contains("same process"));

        let mut refusing = round(2);
        refusing.upgrade.answer = Some(serde_json::json!({ "refused": 3 }));
        assert!(problem(refusing, totals()).contains("3 connections refused"));
    }

    #[test]
    fn queues_that_were_never_filled_prove_nothing() {
        let of_slow = |second| problems_of(Scenario::Slow, second, totals());
        let mut filled = round(2);
        filled.samples.server.memory_bytes = 40 * MIB;
        assert_eq!(of_slow(filled), [""; 0]);
        let mut empty = round(2);
        empty.samples.server.memory_bytes = 9 * MIB;
        assert!(of_slow(empty)[0].contains("and no 20.0 in queues"));
    }

    #[test]
    fn every_fault_is_a_problem() {
        let lost = Faults { lost: 1, ..Faults::default() };
        assert!(problem(round(2), Totals { faults: lost, ..totals() }).contains("lost 1"));
        let reset = Visits { complete: 9, reset: 1, ..Visits::default() };
        assert!(problem(round(2), Totals { visits: reset, ..totals() }).contains("reset 1"));
        let silent = Totals { received: 0, ..totals() };
        assert!(problem(round(2), silent).contains("nothing was checked"));
    }

    #[test]
    fn what_grows_is_a_problem() {
        let grown = |sample: Sample| {
            let samples = Samples { server: sample, ..SAMPLES };
            problem(Round { samples, ..round(2) }, totals())
        };
        assert!(grown(Sample { descriptors: 105, ..SAMPLE }).contains("server's descriptors"));
        assert!(grown(Sample { threads: 4, ..SAMPLE }).contains("server's threads"));
        assert!(grown(Sample { memory_bytes: 18 * MIB, ..SAMPLE }).contains("server's bytes"));
        let supervisor = Some(Sample { descriptors: 105, ..SAMPLE });
        let samples = Samples { supervisor, ..SAMPLES };
        let last = Round { samples, ..round(2) };
        assert!(problem(last.clone(), totals()).contains("supervisor's"));
        assert_eq!(problems_of(Scenario::Churn, last, totals()), [""; 0]);
    }

    #[test]
    fn upgrades_that_were_not_made_are_a_problem() {
        let mut outcome = Outcome::new(SAMPLES);
        outcome.end(&Scenario::Basic.plan(), totals());
        assert_eq!(outcome.problems, ["0 of 20 upgrades"]);
    }
}
