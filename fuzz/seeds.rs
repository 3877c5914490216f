//! Writes the seeds of every target to `seeds/`, from the scripted sessions of `tests/split`.

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

fn write(target: &str, seeds: BTreeSet<Vec<u8>>) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let short = seeds.into_iter().filter(|seed| seed.len() <= SEED_BYTES_MAX);
    for (number, seed) in short.enumerate() {
        fs::write(folder.join(format!("{number:03}")), seed)?;
    }
    Ok(())
}
