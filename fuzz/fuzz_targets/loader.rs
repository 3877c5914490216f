//! What a process is handed by its predecessor or its successor: state files (the envelope, its
//! records, each connection to the last field), the packets of a lane, the messages of the channel.
//! Arbitrary bytes neither panic nor take more memory than there are bytes for; what is loaded is
//! saved and loaded again as the same, and can be driven, whatever it is.

#![no_main]

#[path = "../../tests/golden/process.rs"]
#[allow(dead_code)]
mod process;

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use process::{Client, Process};
use steadfast::app::Command;
use steadfast::base::envelope::{self, HEAD_BYTES};
use steadfast::base::format::Format;
use steadfast::base::snapshot::SnapshotError;
use steadfast::handover::wire::{ToPredecessor, ToSuccessor};
use steadfast::hub::{RoomId, RoomRef};
use steadfast::net::lane::Packet;

const NOW: u32 = 1_000_000;

fuzz_target!(|bytes: &[u8]| {
    survives(Packet::decode, Packet::encode, bytes);
    survives(ToSuccessor::decode, |message| message.encode().expect("it fitted"), bytes);
    survives(ToPredecessor::decode, |message| message.encode().expect("it fitted"), bytes);
    // As it is, and with a head that is right: the checksum lets nothing else through.
    load(bytes);
    let body = bytes.get(HEAD_BYTES..).unwrap_or_default();
    for format in Format::all() {
        load(&[&envelope::head(format, body)[..], body].concat());
    }
});

fn load(file: &[u8]) {
    let mut process = Process::new(NOW);
    let Ok((format, mut clients)) = process.load(file) else {
        return;
    };
    let saved = process.save(format, &mut clients);
    assert!(saved.len() <= file.len(), "{} bytes of {}", saved.len(), file.len());
    let mut other = Process::new(NOW);
    let (_, mut again) = other.load(&saved).expect("just saved");
    assert!(other.save(format, &mut again) == saved, "loaded and saved again");
    let rooms: Vec<RoomId> = clients.iter().flat_map(|client| rooms_of(&process, client)).collect();
    for client in &mut clients {
        drive(&mut process, client, b"\x81\x80\0\0\0\0\x88\x80\0\0\0\0");
    }
    let hub = &process.dispatcher.hub;
    assert!(rooms.iter().all(|room| hub.members(room.borrowed()).is_empty()), "they are all gone");
}

fn rooms_of(process: &Process, client: &Client) -> Vec<RoomId> {
    let space = process.dispatcher.routes[usize::from(client.conn.route)].space;
    let names = process.dispatcher.hub.rooms_of(client.conn.memberships);
    names.map(|name| RoomRef { space, name }.to_id()).collect()
}

/// What a worker does with it, to its end.
fn drive(process: &mut Process, client: &mut Client, bytes: &[u8]) {
    process.dispatcher.on_command(&mut client.conn, client.key, Command::Accept);
    for _ in 0..4 {
        let parked = client.conn.session.take_parked();
        process.feed(client, parked.as_deref().unwrap_or(bytes));
        process.flush(client, usize::MAX);
    }
    process.dispatcher.on_deadline(&mut client.conn, client.key);
    process.flush(client, usize::MAX);
    process.dispatcher.on_dropped(&mut client.conn, client.key);
}

/// What is decoded is encoded to what decodes to the same.
fn survives<T: Debug + PartialEq>(
    decode: fn(&[u8]) -> Result<T, SnapshotError>,
    encode: fn(&T) -> Vec<u8>,
    bytes: &[u8],
) {
    if let Ok(message) = decode(bytes) {
        assert_eq!(decode(&encode(&message)).as_ref(), Ok(&message));
    }
}
