//! The name a connection has in logs and in the API.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Digits of `u64::MAX` in base 36.
const DIGITS_MAX: usize = 13;

/// Names one connection, over all generations of the process that serves it.
///
/// It is written in base 36, in lower case (`gqll7vatq8`), and that is the only form it is read
/// back from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// The id as a number.
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// The inverse of [`ConnectionId::to_u64`].
    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; DIGITS_MAX];
        let mut start = text.len();
        let mut rest = self.0;
        loop {
            start -= 1;
            text[start] = DIGITS[(rest % 36) as usize];
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        f.pad(str::from_utf8(&text[start..]).expect("the digits are ASCII"))
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionId({self})")
    }
}

/// A text that is not a [`ConnectionId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAConnectionId;

impl fmt::Display for NotAConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a connection id: expected up to 13 of 0-9 and a-z")
    }
}

impl std::error::Error for NotAConnectionId {}

impl FromStr for ConnectionId {
    type Err = NotAConnectionId;

    fn from_str(text: &str) -> Result<Self, NotAConnectionId> {
        // One id, one text: no empty one, no leading zero.
        if text.is_empty() || (text.len() > 1 && text.starts_with('0')) {
            return Err(NotAConnectionId);
        }
        let mut number = 0_u64;
        for byte in text.bytes() {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'z' => byte - b'a' + 10,
                _ => return Err(NotAConnectionId),
            };
            let shifted = number.checked_mul(36);
            let sum = shifted.and_then(|number| number.checked_add(digit.into()));
            number = sum.ok_or(NotAConnectionId)?;
        }
        Ok(Self(number))
    }
}

/// Hands out connection ids to all threads of a process.
///
/// Ids count up from the wall clock in microseconds at the first start. A process would have to
/// accept a million connections a second, all its life, to use ids that a later start, reading a
/// later clock, begins with. A successor that takes connections over goes on from
/// [`ConnectionIds::upcoming`] and does not depend on the clock at all.
#[derive(Debug)]
pub struct ConnectionIds {
    next: AtomicU64,
}

impl ConnectionIds {
    /// Starts at `first`: microseconds since 1970, or what a predecessor's
    /// [`ConnectionIds::upcoming`] said.
    pub fn new(first: u64) -> Self {
        Self { next: AtomicU64::new(first) }
    }

    /// An id that no other connection has had.
    pub fn allocate(&self) -> ConnectionId {
        // Only the number itself is shared; nothing is published along with it.
        ConnectionId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Goes on at `next`, if that is further.
    pub fn skip_to(&self, next: u64) {
        self.next.fetch_max(next, Ordering::Relaxed);
    }

    /// Where a successor goes on: above every id handed out so far.
    pub fn upcoming(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::testing::Sequence;
    use std::collections::HashSet;

    #[test]
    fn ids_count_up_from_where_they_start() {
        let ids = ConnectionIds::new(1_700_000_000_000_000);
        assert_eq!(ids.allocate().to_string(), "gqll7vatq8");
        assert_eq!(ids.allocate().to_u64(), 1_700_000_000_000_001);
        assert_eq!(ids.upcoming(), 1_700_000_000_000_002);
        let successor = ConnectionIds::new(ids.upcoming());
        assert_eq!(successor.allocate(), ids.allocate());
    }

    #[test]
    fn the_text_names_the_id_and_only_it() {
        let mut random = Sequence::new(1);
        let numbers = (0..64).flat_map(|bits| [1 << bits, (1 << bits) - 1, random.next() >> bits]);
        let mut texts = HashSet::new();
        let mut seen = HashSet::new();
        for number in numbers.chain([u64::MAX]) {
            let id = ConnectionId::from_u64(number);
            let text = id.to_string();
            assert_eq!(text.parse(), Ok(id), "{text}");
            assert_eq!(u64::from_str_radix(&text, 36), Ok(number));
            seen.insert(number);
            texts.insert(text);
        }
        assert_eq!(texts.len(), seen.len());
        assert_eq!(format!("{:>4}", ConnectionId(35)), "   z");
        assert_eq!(format!("{:?}", ConnectionId(36)), "ConnectionId(10)");
    }

    #[test]
    fn other_texts_are_refused() {
        // The last two are u64::MAX + 1 and 14 digits.
        for text in
            ["", "00", "01", "A", "-1", "+1", " 1", "\u{e9}", "3w5e11264sgsg", "10000000000000"]
        {
            assert_eq!(text.parse::<ConnectionId>(), Err(NotAConnectionId), "{text:?}");
        }
        assert_eq!("0".parse(), Ok(ConnectionId(0)));
        assert_eq!("3w5e11264sgsf".parse(), Ok(ConnectionId(u64::MAX)));
    }
}
