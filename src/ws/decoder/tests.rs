use super::*;
use crate::base::testing::check_loader;
use crate::ws::encode;

/// Late enough for every distance of a snapshot that is torn at random.
const NOW: Tick = Tick::new(u32::MAX - 1);

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const RULES: Rules =
    Rules { role: Role::Server, deflate: false, message_bytes_max: 1 << 20, fragments_max: 4 };

fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    encode::frame(&mut out, Header { fin, rsv1: false, opcode, mask: Some(KEY), len: 0 }, payload);
    out
}

/// Feeds `pieces` and collects what comes out, up to the first violation.
fn decode_pieces<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    rules: &Rules,
) -> (Vec<Incoming<'static>>, Option<ProtocolError>) {
    decode_with(pieces, rules, |decoder| decoder)
}

/// Does something with the decoder behind each piece.
fn decode_with<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    rules: &Rules,
    between: impl Fn(Decoder) -> Decoder,
) -> (Vec<Incoming<'static>>, Option<ProtocolError>) {
    let mut decoder = Decoder::default();
    let mut inflater = Inflater::default();
    let mut spare = Spare::default();
    let mut seen = vec![];
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut input = Input::new(&mut bytes);
        loop {
            match decoder.decode(&mut input, rules, &mut inflater, &mut spare) {
                Ok(Some(incoming)) => seen.push(owned(incoming)),
                Ok(None) => break,
                Err(error) => return (seen, Some(error)),
            }
        }
        assert!(input.rest().is_empty(), "None means that all was consumed");
        decoder = between(decoder);
    }
    (seen, None)
}

fn save(decoder: &Decoder) -> Vec<u8> {
    let mut writer = Writer::new();
    decoder.save(NOW, &mut writer);
    writer.into_bytes()
}

fn moved(decoder: Decoder) -> Decoder {
    let saved = save(&decoder);
    let mut reader = Reader::new(&saved);
    let loaded = Decoder::load(NOW, &mut reader).expect("just saved");
    assert_eq!(reader.finish(), Ok(()));
    loaded
}

fn owned(incoming: Incoming<'_>) -> Incoming<'static> {
    match incoming {
        Incoming::Message(Message::Text(text)) => {
            Incoming::Message(Message::Text(Cow::Owned(text.into_owned())))
        }
        Incoming::Message(Message::Binary(bytes)) => {
            Incoming::Message(Message::Binary(Cow::Owned(bytes.into_owned())))
        }
        Incoming::Ping(payload) => Incoming::Ping(Cow::Owned(payload.into_owned())),
        Incoming::Pong(payload) => Incoming::Pong(Cow::Owned(payload.into_owned())),
        Incoming::Close(body) => Incoming::Close(body),
    }
}

/// Asserts that every way to cut `bytes` in equal pieces, and in two, gives the same.
fn decode_every_way(
    bytes: &[u8],
    rules: &Rules,
) -> (Vec<Incoming<'static>>, Option<ProtocolError>) {
    let whole = decode_pieces([bytes].into_iter(), rules);
    for size in 1..bytes.len() {
        assert_eq!(decode_pieces(bytes.chunks(size), rules), whole, "pieces of {size}");
        let (head, tail) = bytes.split_at(size);
        assert_eq!(decode_pieces([head, tail].into_iter(), rules), whole, "cut at {size}");
        assert_eq!(decode_with(bytes.chunks(size), rules, moved), whole, "moved every {size}");
    }
    whole
}

#[test]
fn every_stage_is_loaded_and_nothing_else_harms() {
    let bytes = [
        frame(false, Opcode::Text, "grö".as_bytes()),
        frame(true, Opcode::Ping, b"ping"),
        frame(true, Opcode::Continuation, &[b'x'; 130]),
    ]
    .concat();
    for end in 0..bytes.len() {
        let mut decoder = Decoder::default();
        let mut bytes = bytes[..end].to_vec();
        let mut input = Input::new(&mut bytes);
        let (mut inflater, mut spare) = (Inflater::default(), Spare::default());
        while decoder.decode(&mut input, &RULES, &mut inflater, &mut spare).unwrap().is_some() {}
        check_loader(&save(&decoder), |reader| {
            Decoder::load(NOW, reader).map(|loaded| save(&loaded))
        });
    }
}

/// Whatever is loaded can be fed with whatever comes, and stops somewhere.
#[test]
fn what_cannot_be_is_refused() {
    let whole_header = [0_u8, 6, 0x81, 0x80, 1, 2, 3, 4, 0];
    let too_long_header = [&[0_u8, 15][..], &[0xff; 15], &[0]].concat();
    let no_message = [1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    let endless = [1, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0];
    let no_fragment = [0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0];
    let carry_of_nothing = [0, 0, 1, 1, 0, 1, 0, 0, 0, 1, 0xc3, 1, b'a'];
    let carry_of_bytes = [0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0xc3, 1, 0xc3];
    let data_as_control = [2, 1, 5, 0, 0, 0];
    let whole_control = [2, 9, 1, 0, 1, 0, 0];
    let long_control = [2, 9, 126, 0, 0, 0];
    let cases: [&[u8]; 10] = [
        &whole_header,
        &too_long_header,
        &no_message,
        &endless,
        &no_fragment,
        &carry_of_nothing,
        &carry_of_bytes,
        &data_as_control,
        &whole_control,
        &long_control,
    ];
    for bytes in cases {
        let loaded = Decoder::load(NOW, &mut Reader::new(bytes));
        assert!(matches!(loaded, Err(SnapshotError::Invalid(_))), "{bytes:?}: {loaded:?}");
    }
}

fn text(text: &str) -> Incoming<'static> {
    Incoming::Message(Message::Text(Cow::Owned(text.to_owned())))
}

#[test]
fn the_examples_of_rfc_6455_section_5_7() {
    let masked_hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode_every_way(&masked_hello, &RULES), (vec![text("Hello")], None));

    let client = Rules { role: Role::Client, ..RULES };
    let fragmented = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
    assert_eq!(decode_every_way(&fragmented, &client), (vec![text("Hello")], None));
    let ping = [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    let expected = Incoming::Ping(Cow::Borrowed(&b"Hello"[..]));
    assert_eq!(decode_every_way(&ping, &client), (vec![expected], None));
}

#[test]
fn control_frames_interleave_with_fragments() {
    let bytes = [
        frame(false, Opcode::Text, "κό".as_bytes()),
        frame(true, Opcode::Ping, b"are you there"),
        frame(false, Opcode::Continuation, &"σ".as_bytes()[..1]),
        frame(true, Opcode::Pong, b""),
        frame(true, Opcode::Continuation, &"σ".as_bytes()[1..]),
        frame(true, Opcode::Binary, &[7; 300]),
        frame(true, Opcode::Close, &[3, 232, b'o', b'k']),
    ]
    .concat();
    let (seen, error) = decode_every_way(&bytes, &RULES);
    let close = CloseFrame::new(crate::ws::CloseCode::NORMAL, "ok");
    let expected = [
        Incoming::Ping(Cow::Borrowed(&b"are you there"[..])),
        Incoming::Pong(Cow::Borrowed(&b""[..])),
        text("κόσ"),
        Incoming::Message(Message::Binary(Cow::Borrowed(&[7; 300]))),
        Incoming::Close(Some(close)),
    ];
    assert_eq!((seen.as_slice(), error), (&expected[..], None));
}

#[test]
fn violations_across_frames_are_named() {
    use ProtocolError::*;
    let cases = [
        (frame(true, Opcode::Continuation, b"x"), UnexpectedContinuation),
        (
            [frame(false, Opcode::Text, b"x"), frame(true, Opcode::Text, b"y")].concat(),
            ExpectedContinuation,
        ),
        (
            std::iter::once(frame(false, Opcode::Binary, b""))
                .chain((0..4).map(|_| frame(false, Opcode::Continuation, b"")))
                .collect::<Vec<_>>()
                .concat(),
            TooManyFragments,
        ),
        (frame(true, Opcode::Text, b"\xff"), InvalidUtf8),
        (frame(true, Opcode::Text, "ü".as_bytes().split_last().unwrap().1), InvalidUtf8),
        (frame(true, Opcode::Close, &[3]), CloseBodyTooShort),
        (frame(true, Opcode::Close, &[3, 237]), InvalidCloseCode),
    ];
    for (bytes, error) in cases {
        assert_eq!(decode_every_way(&bytes, &RULES).1, Some(error), "{bytes:x?}");
    }
}

#[test]
fn invalid_text_fails_before_its_frame_ends() {
    let mut bytes = frame(false, Opcode::Text, b"ok \xff and much more that never arrives");
    bytes.truncate(6 + 4);
    assert_eq!(decode_pieces([&bytes[..]].into_iter(), &RULES).1, Some(ProtocolError::InvalidUtf8));
}

#[test]
fn a_length_over_the_limit_is_refused_from_the_header_alone() {
    let rules = Rules { message_bytes_max: 1000, ..RULES };
    let ok = frame(true, Opcode::Binary, &[1; 1000]);
    assert_eq!(decode_pieces([&ok[..]].into_iter(), &rules).1, None);

    let too_big = frame(true, Opcode::Binary, &[1; 1001]);
    let header_alone = &too_big[..8];
    let (_, error) = decode_pieces([header_alone].into_iter(), &rules);
    assert_eq!(error, Some(ProtocolError::MessageTooBig));

    let second =
        [frame(false, Opcode::Binary, &[1; 600]), frame(true, Opcode::Continuation, &[1; 401])]
            .concat();
    assert_eq!(decode_every_way(&second, &rules).1, Some(ProtocolError::MessageTooBig));
}

#[test]
fn a_declared_length_allocates_nothing() {
    let rules = Rules { message_bytes_max: 1 << 30, ..RULES };
    let mut bytes =
        Header { fin: true, rsv1: false, opcode: Opcode::Binary, mask: Some(KEY), len: 1 << 30 }
            .encode()
            .to_vec();
    bytes.push(0);
    let mut decoder = Decoder::default();
    let decoded = decoder
        .decode(
            &mut Input::new(&mut bytes),
            &rules,
            &mut Inflater::default(),
            &mut Spare::default(),
        )
        .map(|i| i.is_none());
    assert_eq!(decoded, Ok(true));
    assert!(decoder.partial.expect("under way").data.capacity() < 100);
}

#[test]
fn idle_state_is_small() {
    assert!(size_of::<Decoder>() <= 24, "{}", size_of::<Decoder>());
}

/// Every way to receive a large text: copied up to a point, from there on read to where it belongs.
#[test]
fn what_is_read_to_its_place_is_decoded_like_everything_else() {
    let text = "größer 🦀 ".repeat(8_000);
    let bytes = frame(true, Opcode::Text, text.as_bytes());
    for copied in (30_000..bytes.len()).step_by(7_919) {
        let mut decoder = Decoder::default();
        let mut inflater = Inflater::default();
        let mut spare = Spare::default();
        let (head, mut rest) = bytes.split_at(copied);
        let mut head = head.to_vec();
        let mut input = Input::new(&mut head);
        let decoded = decoder.decode(&mut input, &RULES, &mut inflater, &mut spare);
        assert_eq!(decoded, Ok(None));
        while let Some(room) = decoder.direct_room() {
            let len = room.len.min(rest.len()).min(10_007);
            room.buffer.extend_from_slice(&rest[..len]);
            rest = &rest[len..];
            assert_eq!(decoder.received_direct(len), Ok(()));
        }
        assert!(rest.len() < DIRECT_BYTES_MIN, "{copied}: {}", rest.len());
        let mut rest = rest.to_vec();
        let mut input = Input::new(&mut rest);
        let decoded = decoder.decode(&mut input, &RULES, &mut inflater, &mut spare);
        assert_eq!(decoded, Ok(Some(Incoming::Message(Message::Text(Cow::Borrowed(&text))))));
    }
}

/// Bytes that growing has moved while this message arrived, for each of its bytes.
fn moves_per_byte(fragments: usize, fragment_bytes: usize, read_bytes: usize) -> f64 {
    let rules = Rules { fragments_max: u32::MAX, ..RULES };
    let mut decoder = Decoder::default();
    let mut inflater = Inflater::default();
    let mut spare = Spare::default();
    let mut bytes = Vec::new();
    for index in 0..fragments {
        let opcode = if index == 0 { Opcode::Binary } else { Opcode::Continuation };
        bytes.extend(frame(index + 1 == fragments, opcode, &vec![7; fragment_bytes]));
    }
    let mut whole = None;
    for piece in bytes.chunks_mut(read_bytes) {
        let mut input = Input::new(piece);
        let decoded = decoder.decode(&mut input, &rules, &mut inflater, &mut spare).unwrap();
        whole = decoded.map(owned);
        let held = decoder.partial.as_ref().map_or(0, |partial| partial.data.capacity());
        assert!(held <= rules.message_bytes_max, "{held} bytes are held");
    }
    let payload = fragments * fragment_bytes;
    assert_eq!(whole, Some(Incoming::Message(Message::Binary(Cow::Owned(vec![7; payload])))));
    spare.moved as f64 / payload as f64
}

#[test]
fn growing_moves_each_byte_at_most_three_times_on_average() {
    let mut worst = 0_f64;
    for size in [1 << 20, (1 << 20) - 4, 700_001, 262_145, 131_071, 65_537, 30_000] {
        for fragments in [1, 2, 3, 7, 16, 129, 1_024, 1_500] {
            for read_bytes in [100, 4_000, 65_536, 131_072] {
                let moves = moves_per_byte(fragments, size / fragments, read_bytes);
                assert!(moves <= 3.0, "{moves} of {size} in {fragments}, by {read_bytes}");
                worst = worst.max(moves);
            }
        }
    }
    assert!(worst > 0.5, "nothing was counted: {worst}");
    // A doubling at a time, from a fragment on.
    assert!(moves_per_byte(1_024, 1_024, 131_072) <= 2.0);
}

#[test]
fn bad_text_fails_where_it_was_read_to() {
    let mut payload = vec![b'a'; 100_000];
    payload[60_000] = 0xff;
    let mut bytes = frame(true, Opcode::Text, &payload);
    let mut decoder = Decoder::default();
    let mut input = Input::new(&mut bytes[..40_000]);
    let (mut inflater, mut spare) = (Inflater::default(), Spare::default());
    assert_eq!(decoder.decode(&mut input, &RULES, &mut inflater, &mut spare), Ok(None));
    let room = decoder.direct_room().expect("a quarter is there");
    room.buffer.extend_from_slice(&bytes[40_000..70_000]);
    assert_eq!(decoder.received_direct(30_000), Err(ProtocolError::InvalidUtf8));
}

/// When what is under way began and grew, as a decoder of these pieces, one a second, says.
fn unfinished_after(pieces: &[&[u8]]) -> Option<Unfinished> {
    let mut decoder = Decoder::default();
    let mut now = Tick::new(1_000);
    for piece in pieces {
        now = now.after(Duration::from_secs(1));
        let mut bytes = piece.to_vec();
        let mut input = Input::new(&mut bytes);
        let (mut inflater, mut spare) = (Inflater::default(), Spare::default());
        while decoder.decode(&mut input, &RULES, &mut inflater, &mut spare).unwrap().is_some() {}
        decoder.mark(now);
    }
    let found = decoder.unfinished();
    let mut writer = Writer::new();
    decoder.save(now, &mut writer);
    let loaded = Decoder::load(now, &mut Reader::new(writer.as_bytes())).unwrap().unfinished();
    let facts = |found: Option<Unfinished>| found.map(|f| (f.begun, f.grown, f.received));
    assert_eq!(facts(loaded), facts(found), "saved and loaded");
    decoder.was_not_read(Duration::from_secs(2));
    let later = decoder.unfinished();
    assert_eq!(later.map(|f| f.begun), found.map(|f| f.begun.after(Duration::from_secs(2))));
    found
}

#[test]
fn what_is_under_way_says_since_when_and_how_it_grows() {
    let times = |pieces: &[&[u8]]| {
        let ticks = |tick: Tick| (tick.ticks() - 1_000) / 10;
        unfinished_after(pieces).map(|f| (ticks(f.begun), ticks(f.grown), f.received))
    };
    let text = frame(true, Opcode::Text, &[b'x'; 100]);
    let part = frame(false, Opcode::Text, &[b'x'; 100]);
    let ping = frame(true, Opcode::Ping, b"ping");
    assert_eq!(times(&[&text, &ping]), None);
    assert_eq!(times(&[&text, &text[..1]]), Some((2, 2, 0)), "a header");
    assert_eq!(times(&[&ping[..7], &ping[7..8]]), Some((1, 1, 0)), "a ping");
    assert_eq!(times(&[&text[..1], &text[1..10], &text[10..50]]), Some((1, 3, 44)), "a payload");
    assert_eq!(times(&[&part, &ping, &ping[..3]]), Some((1, 1, 100)), "pings do not count");
    assert_eq!(times(&[&text[..9], &text[9..], &part]), Some((3, 3, 100)), "the next one");
}
