//! Medians, tables, verdicts.

use anyhow::Result;

use super::Row;
use super::scenario::{Group, Scenario, Target};
use super::server::Kind;

/// Prints the table of a scenario and what became of its targets; returns whether all is well.
pub(super) fn print(scenario: &Scenario, rows: &[Row]) -> Result<bool> {
    println!("\n{}", scenario.title);
    let measured: Vec<&Row> = rows.iter().filter(|row| !row.reports.is_empty()).collect();
    match scenario.group {
        Group::Idle => print_memory(&measured)?,
        _ => print_cpu_time(scenario, &measured)?,
    }

    let mut well = true;
    for row in rows.iter().filter(|row| row.void > 0) {
        println!("  {}: {} void", row.kind, runs(row.void));
        well = false;
    }
    if rows.iter().any(|row| row.kind == Kind::Steadfast) {
        for target in &scenario.targets {
            well &= verdict(scenario, *target, &measured)?;
        }
    }
    Ok(well)
}

fn print_cpu_time(scenario: &Scenario, rows: &[&Row]) -> Result<()> {
    let message = match scenario.group {
        Group::Rooms => "delivery",
        _ => "message",
    };
    println!(
        "  {:<28}{:>14}{:>18}{:>9}{:>11}{:>14}{:>9}",
        "CPU time",
        format!("µs a {message}"),
        "least–most",
        "kernel",
        "× of ours",
        "a second",
        "load µs"
    );
    let ours = rows.iter().find(|row| row.kind == Kind::Steadfast);
    let ours = ours.map(|row| row.median("server_ns")).transpose()?;
    for row in rows {
        let (least, most) = row.range("server_ns")?;
        let figure = row.median("server_ns")?;
        println!(
            "  {:<28}{:>14.3}{:>18}{:>8.0}%{:>11}{:>14.0}{:>9.3}",
            row.kind,
            figure / 1e3,
            format!("{:.3}–{:.3}", least / 1e3, most / 1e3),
            row.median("system_share")? * 100.0,
            ours.map_or("-".to_owned(), |ours| format!("{:.2}", figure / ours)),
            row.median("messages_per_second")?,
            row.median("load_ns")? / 1e3,
        );
    }
    Ok(())
}

fn print_memory(rows: &[&Row]) -> Result<()> {
    println!(
        "  {:<28}{:>14}{:>18}{:>18}",
        "memory", "B a connection", "least–most", "at the end, MB"
    );
    for row in rows {
        let (least, most) = row.range("bytes_per_connection")?;
        println!(
            "  {:<28}{:>14.0}{:>18}{:>18.1}",
            row.kind,
            row.median("bytes_per_connection")?,
            format!("{least:.0}–{most:.0}"),
            row.median("bytes_high")? / 1e6,
        );
    }
    Ok(())
}

/// Prints whether a target was met, and returns it. One that could not be measured was not.
fn verdict(scenario: &Scenario, target: Target, rows: &[&Row]) -> Result<bool> {
    let name = match scenario.group {
        Group::Idle => "bytes_per_connection",
        _ => "server_ns",
    };
    let figure = |kind| match rows.iter().find(|row| row.kind == kind) {
        Some(row) => row.median(name).map(Some),
        None => Ok(None),
    };
    let Some(ours) = figure(Kind::Steadfast)? else {
        println!("  target MISSED: steadfast was not measured");
        return Ok(false);
    };
    let (met, text) = match target {
        Target::AtMost(most) => (ours <= most, format!("{ours:.0} B, at most {most:.0} B")),
        Target::Ratio { server, factor } => match figure(server)? {
            Some(theirs) if factor < 1.0 => (
                theirs / ours >= factor,
                format!("{:.2} times {server}'s, at most {}", ours / theirs, 1.0 / factor),
            ),
            Some(theirs) => (
                theirs / ours >= factor,
                format!("1/{:.2} of {server}'s, at most 1/{factor}", theirs / ours),
            ),
            None => (false, format!("{server} was not measured")),
        },
    };
    println!("  target {}: {text}", if met { "met" } else { "MISSED" });
    Ok(met)
}

fn runs(number: usize) -> String {
    match number {
        1 => "1 run".to_owned(),
        _ => format!("{number} runs"),
    }
}

impl Row {
    fn sorted(&self, name: &str) -> Result<Vec<f64>> {
        let figures = self.reports.iter().map(|report| report.figure(name));
        let mut figures = figures.collect::<Result<Vec<f64>>>()?;
        figures.sort_by(f64::total_cmp);
        Ok(figures)
    }

    fn median(&self, name: &str) -> Result<f64> {
        let figures = self.sorted(name)?;
        let middle = figures.len() / 2;
        Ok(match figures.len() % 2 {
            0 => f64::midpoint(figures[middle - 1], figures[middle]),
            _ => figures[middle],
        })
    }

    fn range(&self, name: &str) -> Result<(f64, f64)> {
        let figures = self.sorted(name)?;
        Ok((figures[0], figures[figures.len() - 1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Report;

    fn row(kind: Kind, figures: &[f64]) -> Row {
        let report = |figure| Report::parse(&format!("server_ns {figure}\n")).unwrap();
        Row { kind, reports: figures.iter().map(report).collect(), void: 0 }
    }

    #[test]
    fn medians() {
        let median = |figures: &[f64]| row(Kind::Steadfast, figures).median("server_ns").unwrap();
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(row(Kind::Steadfast, &[3.0, 1.0, 2.0]).range("server_ns").unwrap(), (1.0, 3.0));
    }

    #[test]
    fn a_target_is_met_only_by_a_measured_ratio() {
        let scenario = &super::super::scenario::all(1.0)[0];
        let target = Target::Ratio { server: Kind::Tungstenite, factor: 2.0 };
        let ours = row(Kind::Steadfast, &[10.0]);
        let met = |rows: &[&Row]| verdict(scenario, target, rows).unwrap();
        assert!(met(&[&row(Kind::Tungstenite, &[20.0]), &ours]));
        assert!(!met(&[&row(Kind::Tungstenite, &[19.0]), &ours]));
        assert!(!met(&[&ours]));
        assert!(!met(&[&row(Kind::Tungstenite, &[20.0])]));
    }
}
