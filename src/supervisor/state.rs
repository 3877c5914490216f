//! The supervisor's state as it crosses an exec: JSON in a memory file, descriptors by number.
//!
//! Before a supervisor becomes another program it shows that program its state, as it is then: only
//! one that can read it is executed ([`Role::Probe`](super::Role::Probe)). Files of states in
//! `tests/golden/supervisor` hold the format still.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use serde::{Deserialize, Serialize};

use super::machine::{Machine, Pid};
use super::message::Kept;
use crate::handover::ownership::OwnershipWord;
use crate::sys::terminal::Terminal;
use crate::sys::{inherited, memory};

/// The version of the format. A program reads this one alone: what it does not know it cannot do.
const VERSION: u32 = 1;

/// Most bytes of a state that is read: some hundred for each child, and a path for each listener.
const STATE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a supervisor knows.
#[derive(Debug)]
pub struct State {
    pub(super) machine: Machine,
    pub(super) children: BTreeMap<Pid, Child>,
    pub(super) kept: Vec<Kept>,
    /// Says whose the connections are, while somebody else's process takes over.
    pub(super) word: Option<OwnershipWord>,
    pub(super) terminal: Terminal,
}

/// A child that has not been reaped.
#[derive(Debug)]
pub(super) struct Child {
    /// `None` once it has ended, and for a probe.
    pub(super) link: Option<OwnedFd>,
    /// What it has passed on, until it counts.
    pub(super) kept: Vec<Kept>,
}

impl State {
    /// At the start of the program.
    pub(super) fn new() -> Self {
        Self {
            machine: Machine::default(),
            children: BTreeMap::new(),
            kept: Vec::new(),
            word: None,
            terminal: Terminal::at_start(),
        }
    }

    /// A file with the state in it.
    ///
    /// # Errors
    /// No memory or no descriptor is left.
    pub(super) fn write(&self) -> io::Result<File> {
        let children = self.children.iter().map(|(pid, child)| WrittenChild {
            pid: *pid,
            link: child.link.as_ref().map(AsRawFd::as_raw_fd),
            kept: write_down(&child.kept),
        });
        let written = Written {
            version: VERSION,
            machine: self.machine.clone(),
            children: children.collect(),
            kept: write_down(&self.kept),
            word: self.word.as_ref().map(|word| word.as_fd().as_raw_fd()),
            terminal: self.terminal.clone(),
        };
        let mut file = memory::file(c"steadfast-supervisor")?;
        file.write_all(&serde_json::to_vec(&written)?)?;
        Ok(file)
    }

    /// Every descriptor that the state names.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let of_children = self.children.values().flat_map(|child| {
            let links = child.link.iter().map(AsFd::as_fd);
            links.chain(child.kept.iter().map(|kept| kept.fd.as_fd()))
        });
        let kept = self.kept.iter().map(|kept| kept.fd.as_fd());
        let word = self.word.iter().map(AsFd::as_fd);
        kept.chain(word).chain(of_children).collect()
    }

    /// Reads the state, and takes the descriptors it names.
    ///
    /// # Errors
    /// It is of another version, or names a descriptor that is not there.
    pub(super) fn take(file: OwnedFd) -> io::Result<Self> {
        #[cfg(feature = "fault-points")]
        crate::sys::fault::point("supervisor-reading");
        let Written { machine, children, kept, word, terminal, .. } = read(file)?;
        let mut taken = BTreeMap::new();
        for WrittenChild { pid, link, kept } in children {
            let child = Child { link: link.map(inherited::take).transpose()?, kept: take(kept)? };
            taken.insert(pid, child);
        }
        let word =
            word.map(inherited::take).transpose()?.map(OwnershipWord::from_fd).transpose()?;
        Ok(Self { machine, children: taken, kept: take(kept)?, word, terminal })
    }
}

/// Whether this program could go on from the state in a file. It touches none of the descriptors.
pub(super) fn can_read(file: OwnedFd) -> bool {
    read(file).is_ok()
}

/// The state as it is written.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Written {
    version: u32,
    machine: Machine,
    children: Vec<WrittenChild>,
    kept: Vec<(String, RawFd)>,
    word: Option<RawFd>,
    terminal: Terminal,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct WrittenChild {
    pid: Pid,
    link: Option<RawFd>,
    kept: Vec<(String, RawFd)>,
}

fn read(file: OwnedFd) -> io::Result<Written> {
    let mut file = File::from(file);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(STATE_BYTES_MAX).read_to_end(&mut bytes)?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> io::Result<Written> {
    /// What every version begins with.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_slice(bytes)?;
    if version != VERSION {
        let text = format!("the supervisor's state is of version {version}, not {VERSION}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(serde_json::from_slice(bytes)?)
}

fn take(kept: Vec<(String, RawFd)>) -> io::Result<Vec<Kept>> {
    let kept = kept.into_iter();
    kept.map(|(label, number)| Ok(Kept { label, fd: inherited::take(number)? })).collect()
}

fn write_down(kept: &[Kept]) -> Vec<(String, RawFd)> {
    kept.iter().map(|kept| (kept.label.clone(), kept.fd.as_raw_fd())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::machine::{End, Ending, Event, Part};
    use crate::sys::signals::Signal;
    use std::fs;
    use std::path::PathBuf;
    use std::time::Duration;

    /// A supervisor's machine after these events, at one time.
    fn machine(events: &[Event]) -> Machine {
        let mut machine = Machine::default();
        for event in [Event::Begin].iter().chain(events) {
            machine.handle(Duration::from_millis(1_500), event.clone());
        }
        machine
    }

    /// A machine in every state there is.
    fn scenes() -> Vec<(&'static str, Machine)> {
        let serving = [Event::Started(Part::Server, 10), Event::Serving(10)];
        let after = |more: &[Event]| machine(&[&serving, more].concat());
        let asked = Event::StartSuccessor(10, Some("/new/steadfast".into()));
        let upgrading = [asked, Event::Started(Part::Successor, 11)];
        let upgraded = [&upgrading[..], &[Event::Serving(11)]].concat();
        let killed = |pid| Event::ChildExited(pid, End::Killed(9));
        let during = |more: &[Event]| after(&[&upgrading, more].concat());
        vec![
            ("serving", after(&[])),
            ("upgrading", after(&upgrading)),
            ("probing", after(&[&upgraded[..], &[Event::Started(Part::Probe, 12)]].concat())),
            ("orphaned", during(&[killed(10)])),
            ("down", after(&[killed(10)])),
            ("contested", after(&[Event::Contested(10), killed(10)])),
            ("draining", after(&[Event::Signal(Signal::Term)])),
            (
                "asked-to-end",
                after(&[&upgraded[..], &[Event::EndAsked(10, Ending::Fast)]].concat()),
            ),
            ("moved", after(&[Event::Moved(10)])),
            (
                "leaving",
                after(&[&upgraded[..], &[Event::Signal(Signal::Int), killed(11)]].concat()),
            ),
        ]
    }

    fn written(machine: Machine) -> Written {
        let listener = ("listener 127.0.0.1:8000".to_owned(), 7);
        Written {
            version: VERSION,
            machine,
            children: vec![
                WrittenChild { pid: 10, link: Some(5), kept: vec![listener.clone()] },
                WrittenChild { pid: 12, link: None, kept: Vec::new() },
            ],
            kept: vec![listener, ("control".to_owned(), 8)],
            word: Some(9),
            terminal: serde_json::from_str(
                r#"{"is_foreground":true,"ignores_hup":false,"session":4}"#,
            )
            .unwrap(),
        }
    }

    fn golden(name: &str) -> PathBuf {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/supervisor");
        folder.join(format!("{name}.json"))
    }

    #[test]
    fn every_state_is_read_from_its_file_and_written_as_it_was() {
        for (name, machine) in scenes() {
            let file = fs::read(golden(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            let expected = written(machine);
            assert_eq!(parse(&file).unwrap(), expected, "{name}");
            let now = serde_json::to_string_pretty(&expected).unwrap() + "\n";
            assert_eq!(now.as_bytes(), file, "{name}");
        }
    }

    #[test]
    #[ignore = "writes the files that are missing"]
    fn missing_files_are_written() {
        for (name, machine) in scenes() {
            let text = serde_json::to_string_pretty(&written(machine)).unwrap() + "\n";
            fs::create_dir_all(golden(name).parent().unwrap()).unwrap();
            if !golden(name).exists() {
                fs::write(golden(name), text).unwrap();
            }
        }
    }

    #[test]
    fn what_this_program_does_not_know_it_cannot_read() {
        let text = serde_json::to_string(&written(machine(&[]))).unwrap();
        let can = |text: &str| {
            let mut file = memory::file(c"test").unwrap();
            file.write_all(text.as_bytes()).unwrap();
            can_read(file.into())
        };
        assert!(can(&text));
        assert!(can(&text.replacen("\"version\"", "\"more\":[1],\"version\"", 1)), "an addition");
        // A newer version, states of another program under the same version, and nonsense.
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("\"Down\"", "\"Hibernating\""),
            ("\"generation\"", "\"age\""),
            ("\"terminal\"", "\"terminus\""),
        ] {
            assert!(text.contains(from), "{from} in {text}");
            assert!(!can(&text.replacen(from, to, 1)), "{from} as {to}");
        }
        assert!(!can(""));
    }

    #[test]
    fn a_state_is_written_whole() {
        let mut state = State::new();
        state.machine = machine(&[Event::Started(Part::Server, 10), Event::Serving(10)]);
        let kept =
            || vec![Kept { label: "one".to_owned(), fd: File::open("/dev/null").unwrap().into() }];
        state.kept = kept();
        let link = Some(File::open("/dev/null").unwrap().into());
        state.children.insert(10, Child { link, kept: kept() });
        let file: OwnedFd = state.write().unwrap().into();
        let written = read(file).unwrap();
        assert_eq!(written.machine, state.machine);
        assert_eq!((written.kept.len(), written.children.len()), (1, 1));
        assert_eq!(state.descriptors().len(), 3);
        assert_eq!(written.children[0].kept[0].1, state.children[&10].kept[0].fd.as_raw_fd());
    }
}
