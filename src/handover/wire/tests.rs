use super::*;

fn address(text: &str) -> ListenAddr {
    text.parse().unwrap()
}

fn to_successor() -> Vec<ToSuccessor> {
    let prepare = Prepare {
        format: 1,
        generation: 7,
        pid: 4_321,
        workers: 2,
        listeners: 3,
        connections: 19_000,
        ids_upcoming: 1_700_000_000_000_000,
        dry_run: false,
        network_namespace: Some(u64::MAX),
    };
    let dry_run = Prepare { dry_run: true, network_namespace: None, ..prepare.clone() };
    vec![
        ToSuccessor::Prepare(prepare),
        ToSuccessor::Prepare(dry_run),
        ToSuccessor::Listener { address: address("[::1]:8000"), worker: 1 },
        ToSuccessor::Listener { address: address("unix:/run/steadfast.sock"), worker: 0 },
        ToSuccessor::PortLock { address: address("127.0.0.1:8000") },
        ToSuccessor::Control { path: "/run/steadfast/8000.sock".to_owned() },
        ToSuccessor::Lane { worker: 3 },
        ToSuccessor::Frozen { at_ns: 123_456_789, ids_upcoming: 42 },
        ToSuccessor::Offer,
        ToSuccessor::Abort { reason: "stopped by the operator".to_owned() },
    ]
}

fn to_predecessor() -> Vec<ToPredecessor> {
    let refused = |key| Refused { worker: 1, key, reason: format!("route {key} is gone") };
    vec![
        ToPredecessor::Hello(Hello {
            protocol: PROTOCOL,
            formats_read: Formats { first: 1, last: 2 },
            formats_written: FORMATS_WRITTEN,
            build: "steadfast 0.1.0".to_owned(),
            pid: 1,
        }),
        ToPredecessor::Ready { workers: 4, descriptors_free: 20_000 },
        ToPredecessor::Refused { reason: String::new() },
        ToPredecessor::NotAdopted { refused: vec![refused(1), refused(u64::MAX)] },
        ToPredecessor::Adopted { connections: 18_999 },
        ToPredecessor::Active { at_ns: 1 },
    ]
}

fn on_lane() -> Vec<OnLane> {
    vec![
        OnLane::Descriptors { worker: 0, keys: (0..DESCRIPTORS_MAX as u64).collect() },
        OnLane::Closed { worker: 1, keys: vec![5] },
        OnLane::State { worker: 1, connections: 9_500, bytes: 1 << 40 },
    ]
}

/// The message comes back; every shortened packet is an error; no changed byte makes it panic;
/// what a newer build adds is passed over unless it must not be.
fn check<M: Message + PartialEq + fmt::Debug>(messages: Vec<M>) {
    for message in messages {
        let packet = message.encode();
        assert!(packet.len() <= PACKET_BYTES_MAX);
        assert_eq!(M::decode(&packet).as_ref(), Ok(&message));
        for length in 0..packet.len() {
            let error = M::decode(&packet[..length]).unwrap_err();
            assert_eq!(error, WireError::Body(SnapshotError::Truncated), "{message:?}: {length}");
        }
        for at in 0..packet.len() {
            let mut changed = packet.clone();
            changed[at] ^= 0xff;
            assert_ne!(M::decode(&changed).as_ref(), Ok(&message), "{at}");
        }
        let mut added = Writer::new();
        added.record(9, |writer| writer.u8(1));
        let newer = [&packet, added.as_bytes()].concat();
        assert_eq!(M::decode(&newer).as_ref(), Ok(&message));
        added.required_record(10, |_| ());
        let newer = [&packet, added.as_bytes()].concat();
        let error = WireError::Body(SnapshotError::UnknownRecord(10));
        assert_eq!(M::decode(&newer), Err(error));
    }
}

#[test]
fn messages_come_back() {
    check(to_successor());
    check(to_predecessor());
    check(on_lane());
}

#[test]
fn no_message_is_taken_for_one_of_another_socket() {
    let packets: Vec<Vec<u8>> = to_predecessor().iter().map(Message::encode).collect();
    for packet in packets.into_iter().chain(on_lane().iter().map(Message::encode)) {
        let error = WireError::UnknownMessage(packet[0]);
        assert_eq!(ToSuccessor::decode(&packet), Err(error));
    }
    for packet in to_successor().iter().map(Message::encode) {
        assert_eq!(ToPredecessor::decode(&packet), Err(WireError::UnknownMessage(packet[0])));
        assert_eq!(OnLane::decode(&packet), Err(WireError::UnknownMessage(packet[0])));
    }
}

#[test]
fn each_message_has_its_descriptors() {
    let frozen = to_successor().remove(7);
    assert_eq!(ToSuccessor::decode_with(&frozen.encode(), 0), Ok(frozen.clone()));
    let error = WireError::Descriptors { found: 1, needed: 0 };
    assert_eq!(ToSuccessor::decode_with(&frozen.encode(), 1), Err(error));
    for message in to_successor().into_iter().take(7) {
        assert_eq!(ToSuccessor::decode_with(&message.encode(), 1).as_ref(), Ok(&message));
        let error = WireError::Descriptors { found: 0, needed: 1 };
        assert_eq!(ToSuccessor::decode_with(&message.encode(), 0), Err(error));
    }
    let needed = on_lane().iter().map(Message::descriptors).collect::<Vec<_>>();
    assert_eq!(needed, [DESCRIPTORS_MAX, 0, 1]);
}

#[test]
fn counts_are_bounded() {
    let too_many = WireError::Body(SnapshotError::Invalid("number of connections"));
    let keys = vec![1; DESCRIPTORS_MAX + 1];
    let packet = OnLane::Descriptors { worker: 0, keys }.encode();
    assert_eq!(OnLane::decode(&packet), Err(too_many.clone()));
    let keys = vec![1; CLOSED_KEYS_MAX];
    let most = OnLane::Closed { worker: 0, keys }.encode();
    assert!(most.len() <= PACKET_BYTES_MAX && OnLane::decode(&most).is_ok());
    let keys = vec![1; CLOSED_KEYS_MAX + 1];
    assert_eq!(OnLane::decode(&OnLane::Closed { worker: 0, keys }.encode()), Err(too_many));
}

#[test]
fn however_many_are_refused_they_fit_packets() {
    let reason = "\u{e9}".repeat(REASON_BYTES_MAX);
    let refused: Vec<_> =
        (0..1_001).map(|key| Refused { worker: 9, key, reason: reason.clone() }).collect();
    let mut keys = Vec::new();
    for message in ToPredecessor::not_adopted(&refused) {
        let packet = message.encode();
        assert!(packet.len() <= PACKET_BYTES_MAX);
        let ToPredecessor::NotAdopted { refused } = ToPredecessor::decode(&packet).unwrap() else {
            panic!("another message");
        };
        assert!(refused.iter().all(|refused| refused.reason == reason[..REASON_BYTES_MAX]));
        keys.extend(refused.iter().map(|refused| refused.key));
    }
    assert_eq!(keys, (0..1_001).collect::<Vec<_>>());
    assert_eq!(ToPredecessor::not_adopted(&[]).count(), 0);
}

#[test]
fn long_reasons_are_cut_between_characters() {
    let reason = format!("x{}", "\u{e9}".repeat(REASON_BYTES_MAX));
    let message = ToSuccessor::Abort { reason: reason.clone() };
    let reason = reason[..REASON_BYTES_MAX - 1].to_owned();
    assert_eq!(ToSuccessor::decode(&message.encode()), Ok(ToSuccessor::Abort { reason }));
}

#[test]
fn an_address_must_be_one() {
    let packet = packet(PORT_LOCK, |writer| writer.str("nowhere"));
    let error = WireError::Body(SnapshotError::Invalid("address"));
    assert_eq!(ToSuccessor::decode(&packet), Err(error));
}

#[test]
fn the_newest_format_both_know_is_chosen() {
    let formats = |first, last| Formats { first, last };
    assert_eq!(formats(1, 3).newest_common(formats(2, 5)), Some(3));
    assert_eq!(formats(2, 5).newest_common(formats(1, 3)), Some(3));
    assert_eq!(formats(1, 2).newest_common(formats(3, 4)), None);
    assert_eq!(formats(3, 4).newest_common(formats(1, 2)), None);
    assert_eq!(formats(2, 1).newest_common(formats(1, 2)), None);
    assert_eq!(FORMATS_READ.newest_common(FORMATS_WRITTEN), Some(FORMAT));
    assert_eq!(FORMATS_READ.to_string(), "1");
    assert_eq!(formats(1, 2).to_string(), "1 to 2");
}
