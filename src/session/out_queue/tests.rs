use super::*;
use crate::base::format::Format;
use crate::base::testing::check_loader_given;
use crate::ws::Opcode;
use crate::ws::header::Header;

/// A socket that takes `room` bytes and then blocks.
struct Socket {
    room: usize,
    taken: Vec<u8>,
}

impl Socket {
    fn with_room(room: usize) -> Self {
        Self { room, taken: vec![] }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = bytes.len().min(self.room);
        self.room -= len;
        self.taken.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        self.write(&bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn header(len: usize) -> EncodedHeader {
    Header { fin: true, rsv1: false, opcode: Opcode::Binary, mask: None, len: len as u64 }.encode()
}

fn pong(len: u64) -> Header {
    Header { fin: true, rsv1: false, opcode: Opcode::Pong, mask: None, len }
}

/// Queues small ranges, ranges with gaps between them and large frames; returns the bytes in order.
fn fill(queue: &mut OutQueue, turn: &mut Turn) -> Vec<u8> {
    let mut expected = vec![];
    for round in 0..4_u8 {
        for _ in 0..3 {
            let range = turn.append_frame(Opcode::Binary, false, &[round; 20]).unwrap();
            expected.extend_from_slice(turn.slice(range.clone()));
            queue.push(turn, range);
        }
        turn.append_frame(Opcode::Text, false, b"for someone else").unwrap();
        let body = SharedBytes::new(vec![round; 50], &Meter::default());
        expected.extend_from_slice(&header(body.len()));
        expected.extend_from_slice(&body);
        queue.push_large(turn, Some(header(body.len())), Body::Shared(body));
        let frame = [&header(30)[..], &[round; 30]].concat();
        expected.extend_from_slice(&frame);
        let frame = SharedBytes::new(frame, &Meter::default());
        queue.push_large(turn, None, Body::Shared(frame));
        let range = turn.append_frame(Opcode::Text, false, b"behind it").unwrap();
        expected.extend_from_slice(turn.slice(range.clone()));
        queue.push(turn, range);
    }
    expected
}

fn moved(queue: OutQueue) -> OutQueue {
    let mut writer = Writer::new();
    queue.save(&mut writer);
    let mut reader = Reader::new(writer.as_bytes()).with_bodies(writer.bodies().all());
    let loaded = OutQueue::load(&mut reader).expect("just saved");
    assert_eq!(reader.finish(), Ok(()));
    assert_eq!(loaded.is_blocked(), queue.is_blocked());
    loaded
}

#[test]
fn every_queue_is_loaded_and_nothing_else_harms() {
    for room in [0, 1, 25, 70, 90] {
        let mut turn = Turn::server();
        let mut queue = OutQueue::default();
        fill(&mut queue, &mut turn);
        queue.flush(&mut turn, &mut Socket::with_room(room)).unwrap();
        queue.replace_urgent(pong(6), b"urgent");
        let mut writer = Writer::new();
        queue.save(&mut writer);
        let bodies = writer.bodies().clone();
        check_loader_given(bodies.all(), writer.as_bytes(), |reader| {
            let loaded = OutQueue::load(reader)?;
            let mut writer = Writer::naming(bodies.clone(), Format::NEWEST);
            loaded.save(&mut writer);
            Ok(writer.into_bytes())
        });
    }
    // Nothing at all; an empty chunk; torn, and nothing to be torn; shared bytes that are not there,
    // all gone, gone though nothing is torn.
    let bodies = [SharedBytes::new(vec![7; 5], &Meter::default())];
    let load = |bytes: &[u8]| OutQueue::load(&mut Reader::new(bytes).with_bodies(&bodies));
    for bad in [
        &[1, 0, 0, 0, 0][..],
        &[1, 0, 0, 1, 0, 0, 0],
        &[1, 1, 0, 0, 1, b'u'],
        &[1, 1, 0, 1, 1, 1, 0, 0, 0],
        &[1, 1, 0, 1, 1, 0, 0, 5, 0],
        &[1, 0, 0, 1, 1, 0, 0, 4, 0],
        &[1, 1, 0, 1, 1, 0, 2, 130, 5, 7, 0],
    ] {
        assert!(load(bad).is_err(), "{bad:?}");
    }
    assert_eq!(load(&[1, 1, 0, 1, 1, 0, 0, 4, 0]).map(|queue| queue.len()), Ok(1));
}

/// What a client has not taken of large answers goes ahead, and is no longer in the way then.
#[test]
fn large_pieces_go_ahead_of_their_queue() {
    let mut turn = Turn::server();
    let (meter, mut bodies) = (Meter::default(), Bodies::default());
    let mut queue = OutQueue::default();
    let mut expected = fill(&mut queue, &mut turn);
    let mut push = |queue: &mut OutQueue, byte: u8| {
        queue.push_large(&turn, Some(header(50_000)), Body::Owned(vec![byte; 50_000]));
        expected.extend_from_slice(&header(50_000));
        expected.extend_from_slice(&[byte; 50_000]);
    };
    push(&mut queue, 1);
    let owned = queue.held().0;
    queue.share(&meter, |bytes| {
        bodies.number(bytes);
    });
    assert_eq!((owned - queue.held().0, meter.total()), (50_000, 50_000));
    // The next one has come since.
    push(&mut queue, 2);
    let rest = queue.bytes_to_save(&bodies);
    assert!((50_000..51_000).contains(&rest), "{rest}");
    queue.share(&meter, |bytes| {
        bodies.number(bytes);
    });
    assert!(queue.bytes_to_save(&bodies) < 1_000);
    let mut socket = Socket::with_room(0);
    for room in [1, 400, 1_500, 20_000, 50_000, usize::MAX] {
        queue.flush(&mut Turn::server(), &mut socket).unwrap();
        let mut writer = Writer::naming(bodies.clone(), Format::NEWEST);
        queue.save(&mut writer);
        assert!(
            writer.as_bytes().len() < 1_000 && writer.bodies().all().len() == bodies.all().len()
        );
        let mut reader = Reader::new(writer.as_bytes()).with_bodies(bodies.all());
        let loaded = OutQueue::load(&mut reader).unwrap();
        assert_eq!((loaded.len(), loaded.held().1), (queue.len(), queue.held().1));
        (queue, socket.room) = (loaded, room);
    }
    queue.flush(&mut Turn::server(), &mut socket).unwrap();
    assert!(queue.is_empty() && socket.taken == expected);
}

#[test]
fn what_many_queues_share_is_saved_once_and_shared_again() {
    let turn = Turn::server();
    let meter = Meter::default();
    let body = SharedBytes::new(vec![1; 100_000], &meter);
    let queues: Vec<OutQueue> = (0..50)
        .map(|_| {
            let mut queue = OutQueue::default();
            queue.push_large(&turn, None, Body::Shared(body.clone()));
            queue
        })
        .collect();
    let mut writer = Writer::new();
    queues.iter().for_each(|queue| queue.save(&mut writer));
    assert!(writer.as_bytes().len() < 50 * 20);
    let mut reader = Reader::new(writer.as_bytes()).with_bodies(writer.bodies().all());
    let loaded: Vec<_> = queues.iter().map(|_| OutQueue::load(&mut reader).unwrap()).collect();
    assert!(loaded.iter().all(|queue| queue.held() == (0, 100_000)));
    assert_eq!((reader.finish(), meter.total()), (Ok(()), 100_000));
}

#[test]
fn every_split_of_the_writes_gives_the_same_bytes() {
    for (step, moves) in (1..400).flat_map(|step| [(step, false), (step, true)]) {
        let mut turn = Turn::server();
        let mut queue = OutQueue::default();
        let expected = fill(&mut queue, &mut turn);
        assert_eq!(queue.len(), expected.len());
        let mut socket = Socket::with_room(0);
        loop {
            let flushed = queue.flush(&mut turn, &mut socket).unwrap();
            turn.clear();
            if moves {
                queue = moved(queue);
            }
            assert_eq!(queue.len(), expected.len() - socket.taken.len());
            if flushed == Flushed::Empty {
                break;
            }
            socket.room = step;
        }
        assert!(queue.is_empty());
        assert_eq!(socket.taken, expected, "{step} bytes a time, moved: {moves}");
    }
}

#[test]
fn frames_of_a_turn_are_one_range_and_need_no_memory() {
    let mut turn = Turn::server();
    let mut queue = OutQueue::default();
    for _ in 0..16 {
        let range = turn.append_frame(Opcode::Binary, false, &[1; 125]).unwrap();
        queue.push(&turn, range);
    }
    assert!(queue.backlog.is_none());
    let mut socket = Socket::with_room(usize::MAX);
    assert_eq!(queue.flush(&mut turn, &mut socket).unwrap(), Flushed::Empty);
    assert_eq!(socket.taken.len(), 16 * 127);
    assert!(queue.backlog.is_none() && queue.is_empty());
    turn.clear();
    assert_eq!(queue.flush(&mut turn, &mut socket).unwrap(), Flushed::Empty, "nothing, twice");
}

#[test]
fn urgent_frames_overtake_at_frame_boundaries_only() {
    for (room, moves) in (0..=60).flat_map(|room| [(room, false), (room, true)]) {
        let mut turn = Turn::server();
        let mut queue = OutQueue::default();
        let range = turn.append_frame(Opcode::Binary, false, &[9; 20]).unwrap();
        queue.push(&turn, range);
        for _ in 0..2 {
            let body = Body::Owned(vec![1; 40]);
            queue.push_large(&turn, Some(header(40)), body);
        }
        let mut socket = Socket::with_room(room);
        assert_eq!(queue.flush(&mut turn, &mut socket).unwrap(), Flushed::Blocked);
        queue.replace_urgent(pong(3), b"old");
        queue.replace_urgent(pong(3), b"new");
        if moves {
            queue = moved(queue);
        }
        socket.room = usize::MAX;
        assert_eq!(queue.flush(&mut turn, &mut socket).unwrap(), Flushed::Empty);
        let first = [&header(20)[..], &[9; 20]].concat();
        let large = [&header(40)[..], &[1; 40]].concat();
        let boundary = [0, 22, 64].into_iter().find(|&end| end >= room).unwrap();
        let mut expected = [first, large.clone(), large].concat();
        expected.splice(boundary..boundary, [&pong(3).encode()[..], b"new"].concat());
        assert_eq!(socket.taken, expected, "blocked after {room}");
        assert_eq!(queue.len(), 0);
    }
}

#[test]
fn a_broken_socket_is_an_error() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut turn = Turn::server();
    let mut queue = OutQueue::default();
    fill(&mut queue, &mut turn);
    let error = queue.flush(&mut turn, &mut Broken).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// A turn in which an app answers with more than its buffer takes, and the peer reads it all.
#[test]
fn frames_of_a_full_turn_have_memory_of_their_own_and_keep_their_order() {
    let mut turn = Turn::server();
    let mut queue = OutQueue::default();
    let mut expected = 0;
    while let Some(range) = turn.append_frame(Opcode::Binary, false, &[0; 30_000]) {
        expected += range.len();
        queue.push(&turn, range);
    }
    assert!((8 << 20..9 << 20).contains(&expected), "{expected}");
    let mut last = Vec::new();
    for number in 1..4 {
        queue.push_frame(&mut turn, Opcode::Binary, false, Cow::Owned(vec![number; 40]));
        last.extend_from_slice(&header(40));
        last.extend_from_slice(&[number; 40]);
    }
    let mut socket = Socket::with_room(usize::MAX);
    assert_eq!(queue.flush(&mut turn, &mut socket).unwrap(), Flushed::Empty);
    assert_eq!(socket.taken.len(), expected + last.len());
    assert!(socket.taken.ends_with(&last));
    turn.clear();
    assert!(turn.append_frame(Opcode::Binary, false, b"there is room again").is_some());
}
