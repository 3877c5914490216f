//! Our decoder against tungstenite's: thousands of made-up streams, valid ones and damaged ones,
//! the same in each run. `fuzz/fuzz_targets/differential.rs` is the endless version.

mod compare;

use compare::assert_agreement;
use steadfast::ws::{Header, Opcode, encode};

/// SplitMix64: a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Some frames of a client that mostly keeps to the protocol.
fn stream(random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![];
    let mut open = false;
    for _ in 0..random.below(8) + 1 {
        let control = random.one_in(3);
        let mut opcode = match (control, open) {
            (true, _) => random.pick(&[Opcode::Ping, Opcode::Pong, Opcode::Ping, Opcode::Close]),
            (false, true) => Opcode::Continuation,
            (false, false) => random.pick(&[Opcode::Text, Opcode::Binary]),
        };
        if random.one_in(40) {
            opcode = random.pick(&[Opcode::Continuation, Opcode::Text, Opcode::Binary]);
        }
        let fin = opcode.is_control() || random.one_in(2);
        if !opcode.is_control() {
            open = !fin;
        }
        let payload = payload(random, opcode);
        let key = [random.below(256) as u8, 2, 3, random.below(256) as u8];
        let header = Header { fin, rsv1: false, opcode, mask: Some(key), len: 0 };
        encode::frame(&mut bytes, header, &payload);
    }
    bytes
}

fn payload(random: &mut Random, opcode: Opcode) -> Vec<u8> {
    if opcode == Opcode::Close {
        let code = random.pick(&[
            0, 999, 1000, 1001, 1003, 1004, 1005, 1006, 1007, 1011, 1012, 1013, 1014, 1015, 1016,
            2999, 3000, 4000, 4999, 5000, 65535_u16,
        ]);
        let reason = random.pick(&[&b""[..], b"bye", "größer".as_bytes(), b"\xff"]);
        let body = [&code.to_be_bytes()[..], reason].concat();
        return body[..if random.one_in(6) { random.below(3) } else { body.len() }].to_vec();
    }
    let longest = if opcode.is_control() { 4 } else { 7 };
    let len = [0, 1, 7, 125, 126, 300, 3_000, 4_097][random.below(longest)];
    let text = "aé€🦀".repeat(len / 10 + 1).into_bytes();
    // Cut anywhere: in a fragment that may be right, at the end of a message it is not.
    text[..len.min(text.len())].to_vec()
}

#[test]
fn valid_and_nearly_valid_streams() {
    let mut random = Random(1);
    for _ in 0..4_000 {
        assert_agreement(&stream(&mut random));
    }
}

#[test]
fn damaged_streams() {
    let mut random = Random(2);
    for _ in 0..8_000 {
        let mut bytes = stream(&mut random);
        for _ in 0..random.below(3) + 1 {
            let at = random.below(bytes.len().min(24));
            bytes[at] ^= 1 << random.below(8);
        }
        bytes.truncate(random.below(bytes.len()) + 1);
        assert_agreement(&bytes);
    }
}

#[test]
fn every_pair_of_first_bytes() {
    for first in 0..=255 {
        for second in 0..=255 {
            let start = [first, second, 0, 126, 1, 2, 3, 4];
            assert_agreement(&start);
            assert_agreement(&[&start[..], &[b'a'; 300]].concat());
        }
    }
}
