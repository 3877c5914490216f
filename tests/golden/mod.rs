//! States of released formats, as files: `golden/format-N` has what a build of format N wrote of a
//! connection in each state. Every build that reads the format loads them, goes on from them, and
//! writes the same bytes again. What is released is never changed.
//!
//! A new format, and a new scene, get their files by `cargo test --test upgrades golden -- --ignored`, which
//! touches none that is there.

mod process;
mod scenes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use process::Process;
use scenes::{SCENES, Scene};
use steadfast::base::format::Format;
use steadfast::base::snapshot::{Reader, Writer};

/// What the clocks of the processes show, in ticks: where states come from, and where they go to.
const CLOCKS: (u32, u32) = (50_000, 864_000);

fn folder(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/format-{format}"))
}

/// Whether it is in no release, and has no files.
fn is_of_tests(format: Format) -> bool {
    cfg!(feature = "format-next") && format == Format::NEWEST
}

/// A state as this build writes it now.
fn made_now(scene: &Scene, format: Format) -> Vec<u8> {
    let mut process = Process::new(CLOCKS.0);
    let client = (scene.make)(&mut process);
    process.save(format, &mut [client])
}

/// The files of a format, by name; of the tests' own format, which is in no release, what this
/// build writes.
fn files(format: Format) -> BTreeMap<String, Vec<u8>> {
    let folder = folder(format.number());
    if is_of_tests(format) {
        let made = |scene: &Scene| (scene.name.to_owned(), made_now(scene, format));
        return SCENES.iter().map(made).collect();
    }
    let entries = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("format {format} has no files in {folder:?}: {error}"));
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().expect("UTF-8");
        (name, fs::read(entry.path()).expect("a file that can be read"))
    };
    entries.map(|entry| read(entry.expect("an entry of a folder"))).collect()
}

/// The tag of a connection, which consists of records.
const CONNECTION: u16 = 1;

/// The file without the records that a reader may skip: a build may add those to any format.
fn without_optional(format: Format, file: &[u8]) -> Vec<u8> {
    fn copy(mut reader: Reader<'_>, writer: &mut Writer, depth: usize) {
        while let Some(mut record) = reader.record().expect("records") {
            if !record.must_understand {
                continue;
            }
            writer.required_record(record.tag, |writer| match (depth, record.tag) {
                (0, CONNECTION) => {
                    writer.u64(record.body.u64().expect("a key"));
                    copy(record.body, writer, 1);
                }
                _ => {
                    while let Ok(byte) = record.body.u8() {
                        writer.u8(byte);
                    }
                }
            });
        }
    }
    let body = steadfast::base::envelope::open(file).expect("a state file");
    let mut writer = Writer::of(format);
    copy(body, &mut writer, 0);
    let head = steadfast::base::envelope::head(format, writer.as_bytes());
    [&head[..], writer.as_bytes()].concat()
}

#[test]
fn what_is_released_is_loaded_and_goes_on() {
    for format in Format::all() {
        let files = files(format);
        for scene in &SCENES {
            let name = format!("{} of format {format}", scene.name);
            let file = files.get(scene.name).unwrap_or_else(|| panic!("{name} is missing"));
            let mut process = Process::new(CLOCKS.1);
            let loaded = process.load(file).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!((loaded.0, loaded.1.len()), (format, 1), "{name}");
            for mut client in loaded.1 {
                // Shown if it fails.
                println!("{name}");
                (scene.go_on)(&mut process, &mut client);
            }
        }
    }
}

#[test]
fn what_is_released_is_written_as_it_was() {
    for format in Format::all() {
        for (name, file) in files(format) {
            let mut process = Process::new(CLOCKS.1);
            let (_, mut clients) = process.load(&file).expect("a state file");
            let again = process.save(format, &mut clients);
            assert!(
                without_optional(format, &again) == without_optional(format, &file),
                "{name} of format {format} is not what it was:\n{file:02x?}\n{again:02x?}"
            );
        }
    }
}

/// In whatever formats, and as often as it likes.
#[test]
fn what_is_rewritten_in_another_format_comes_back() {
    for from in Format::all() {
        for (name, file) in files(from) {
            for to in Format::all() {
                let mut process = Process::new(CLOCKS.1);
                let (_, mut clients) = process.load(&file).expect("a state file");
                let between = process.save(to, &mut clients);
                assert!(from == to || between != file, "{name}: {from} and {to} are the same");
                let (format, mut clients) = process.load(&between).expect("just saved");
                assert_eq!(format, to);
                let again = process.save(from, &mut clients);
                assert!(
                    without_optional(from, &again) == without_optional(from, &file),
                    "{name} of format {from} by way of {to}"
                );
            }
        }
    }
}

#[test]
fn every_file_has_its_scene() {
    let names: BTreeSet<&str> = SCENES.iter().map(|scene| scene.name).collect();
    assert_eq!(names.len(), SCENES.len(), "two of one name");
    for format in Format::all() {
        for name in files(format).keys() {
            assert!(names.contains(name.as_str()), "{name} of format {format}");
        }
    }
}

/// Files of a format that is read no more stay, and are refused by name.
#[test]
fn formats_of_the_past_are_refused() {
    for number in 1..Format::OLDEST.number() {
        for entry in fs::read_dir(folder(number)).expect("the files of a released format stay") {
            let file = fs::read(entry.expect("an entry").path()).expect("a file");
            let error = Process::new(CLOCKS.1).load(&file).err().expect("not loaded");
            assert!(error.contains(&format!("of format {number};")), "{error}");
        }
    }
}

#[test]
#[ignore = "writes files"]
fn write_the_files_that_are_missing() {
    for format in Format::all().filter(|format| !is_of_tests(*format)) {
        let folder = folder(format.number());
        fs::create_dir_all(&folder).expect("a folder");
        for scene in &SCENES {
            // One that is there may have been released: it stays as it is.
            match File::create_new(folder.join(scene.name)) {
                Ok(mut file) => file.write_all(&made_now(scene, format)).expect("a written file"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
            }
        }
    }
}
