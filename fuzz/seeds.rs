//! Writes the seeds of every target to `seeds/`, from the scripted sessions of `tests/split` and the
//! state files of `tests/golden`.

#[path = "../tests/split/drive.rs"]
#[allow(dead_code)]
mod drive;
#[path = "../tests/split/scripts.rs"]
#[allow(dead_code)]
mod scripts;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use drive::{Driven, Start};
use steadfast::base::format::Format;
use steadfast::base::slab::Key;
use steadfast::handover::wire::{PROTOCOL, ToPredecessor, ToSuccessor};
use steadfast::net::lane::{Origin, Packet, Part};
use steadfast::ws::deflate::{Deflater, Strength};

/// Longer ones slow a fuzzer down and teach it nothing.
const SEED_BYTES_MAX: usize = 360;

fn main() -> io::Result<()> {
    let scripts = scripts::all();
    let mut head = BTreeSet::new();
    let mut decoder = BTreeSet::new();
    let mut differential = BTreeSet::new();
    for script in &scripts {
        match script.start {
            Start::Head | Start::Proxy => drop(head.insert(script.bytes.clone())),
            Start::Open { deflate } => {
                // Largest messages and most fragments; how to cut is the fuzzer's choice.
                let rules = 0b11_1000 | u8::from(deflate) << 1;
                decoder.insert([&[rules, 1], &script.bytes[..]].concat());
                if !deflate {
                    differential.insert(script.bytes.clone());
                }
            }
        }
    }
    head.insert(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n".to_vec());
    write("head", head)?;
    write("decoder", decoder)?;
    write("differential", differential)?;
    write("deflate", deflate())?;
    write("snapshot", snapshot(&scripts))?;
    write_all("loader", loader()?)?;
    write("session", session())
}

/// Payloads, compressed and not, behind the two bytes that choose level, window and cap.
fn deflate() -> BTreeSet<Vec<u8>> {
    let text = "all work and no play makes a dull server; ".repeat(4);
    let mut seeds = BTreeSet::new();
    for (number, window_bits) in (9..=15).enumerate() {
        let mut out = vec![];
        let strength = Strength { level: 1 + number as u8, window_bits };
        Deflater::default().deflate(strength, text.as_bytes(), &mut out);
        seeds.insert([&[(number as u8) << 4 | number as u8, 0x83], &out[..]].concat());
    }
    let blocks: [&[u8]; 4] = [
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        &[0x03, 0x00, 0x03, 0x00],
    ];
    seeds.extend(blocks.map(|block| [&[0, 0xc0], block].concat()));
    seeds
}

/// Sessions in the middle of their scripts, with something waiting for a slow socket, and behind
/// each the rest of what its client sends.
fn snapshot(scripts: &[scripts::Script]) -> BTreeSet<Vec<u8>> {
    let mut seeds = BTreeSet::new();
    for script in scripts {
        let (one, two) = script.bytes.split_at(script.bytes.len() / 2);
        let mut driven = Driven::new(script.start, script.app, script.limits.clone());
        driven.set_room(3);
        driven.receive(one);
        let saved = driven.save();
        seeds.insert([&saved[..], &two[..two.len().min(100)]].concat());
    }
    seeds
}

/// State files, and one of each message and packet of a handover.
fn loader() -> io::Result<BTreeSet<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let mut seeds = BTreeSet::new();
    for format in fs::read_dir(folder)? {
        let format = format?.path();
        if format.is_dir() {
            for file in fs::read_dir(format)? {
                seeds.insert(fs::read(file?.path())?);
            }
        }
    }
    let key = Key::from_u64(1 << 32 | 7).expect("of the first generation");
    let origin = Origin { worker: 1, key };
    let packets = [
        Packet::Descriptors { worker: 1, keys: vec![key, key] },
        Packet::Closed { worker: 1, keys: vec![key] },
        Packet::Level { worker: 1 },
        Packet::States { worker: 1, connections: 2, saved_ns: 9, part: Part::Ahead },
        Packet::States { worker: 1, connections: 2, saved_ns: 9, part: Part::More },
        Packet::States {
            worker: 1,
            connections: 2,
            saved_ns: 9,
            part: Part::Last { connections: 3 },
        },
    ];
    seeds.extend(packets.iter().map(Packet::encode));
    let to_successor = [
        ToSuccessor::Prepare {
            generation: 3,
            format: 1,
            workers: 2,
            connections: 1_000,
            holdings: 3,
            rehearsal: false,
            begun_ns: 5,
            time_namespace: 6,
            history: "[]".to_owned(),
        },
        ToSuccessor::Holding { label: "listener 127.0.0.1:80".to_owned() },
        ToSuccessor::Holding { label: "control".to_owned() },
        ToSuccessor::Lane,
        ToSuccessor::Frozen { ids_upcoming: 9, at_ns: 10 },
        ToSuccessor::Offer,
        ToSuccessor::Abort { reason: "it is off".to_owned() },
    ];
    seeds.extend(to_successor.iter().flat_map(ToSuccessor::encode));
    let hello = ToPredecessor::Hello {
        protocol: PROTOCOL,
        formats: Format::RANGE,
        build: "0.1.0".to_owned(),
        pid: 7,
    };
    let to_predecessor = [
        hello,
        ToPredecessor::Ready { workers: 2 },
        ToPredecessor::Refused { reason: "it cannot".to_owned() },
        ToPredecessor::Parked,
        ToPredecessor::Refusals { connections: vec![(origin, "its app".to_owned())] },
        ToPredecessor::Adopted { connections: 1 },
        ToPredecessor::Active,
    ];
    seeds.extend(to_predecessor.iter().flat_map(ToPredecessor::encode));
    Ok(seeds)
}

/// Bytes that `arbitrary` makes operations of: there is no way to write them down, so they are
/// long and patterned, and the fuzzer takes it from there.
fn session() -> BTreeSet<Vec<u8>> {
    (0..12_u32)
        .map(|seed| {
            let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            // How, and then operations, each of which begins with a number of four bytes.
            std::iter::once(seed as u8).chain((0..340).map(|_| next())).collect()
        })
        .collect()
}

fn write(target: &str, mut seeds: BTreeSet<Vec<u8>>) -> io::Result<()> {
    seeds.retain(|seed| seed.len() <= SEED_BYTES_MAX);
    write_all(target, seeds)
}

fn write_all(target: &str, seeds: BTreeSet<Vec<u8>>) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&folder)?;
    for file in fs::read_dir(&folder)? {
        let file = file?;
        // Those with a name were written by hand.
        if file.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            fs::remove_file(file.path())?;
        }
    }
    for (number, seed) in seeds.into_iter().enumerate() {
        fs::write(folder.join(format!("{number:03}")), seed)?;
    }
    Ok(())
}
