//! State as bytes: what a type's `save` writes with and its `load` reads with.
//!
//! Numbers are little-endian and of fixed width; lengths and counts are varints (LEB128, seven
//! bits a byte, lowest first, in their shortest form). A *record* is a tag, a length and that many
//! bytes; a reader that does not know the tag skips it, unless the writer has marked it as one
//! that must be understood. So a newer build can add what an older one may ignore, and can forbid
//! it to ignore what matters.
//!
//! Which of several formats is written or read, [`Writer`] and [`Reader`] know; the values here are
//! the same in each of them.
//!
//! ```text
//! record:  u16: bit 15 must-understand, bits 0..15 tag | u64 length | body
//! ```
//!
//! A [`Reader`] is given bytes of another process: it trusts no length, returns errors instead of
//! panicking, and borrows instead of allocating.

use std::fmt;
use std::time::Duration;

use super::format::Format;
use super::shared::{Bodies, SharedBytes};
use super::tick::Tick;

/// Marks, in a record's tag, that a reader which does not know it must refuse the snapshot.
const MUST_UNDERSTAND: u16 = 0x8000;

/// What is wrong with the bytes given to a [`Reader`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotError {
    /// A value or a length needs more bytes than are left.
    Truncated,
    /// Bytes are left after the last value.
    TrailingBytes(usize),
    /// A varint does not fit 64 bits, or is not in its shortest form.
    InvalidVarint,
    /// A string is not UTF-8.
    InvalidUtf8,
    /// A record of this tag is unknown here, and its writer demands that it be understood.
    UnknownRecord(u16),
    /// A value that this field cannot have; what it is meant to be.
    Invalid(&'static str),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => write!(f, "the snapshot ends in the middle of a value"),
            Self::TrailingBytes(bytes) => {
                write!(f, "{bytes} bytes are left over at the end of the snapshot")
            }
            Self::InvalidVarint => write!(f, "the snapshot holds a malformed length"),
            Self::InvalidUtf8 => write!(f, "the snapshot holds text that is not UTF-8"),
            Self::UnknownRecord(tag) => write!(
                f,
                "the snapshot holds a record (tag {tag}) that this build does not know and must"
            ),
            Self::Invalid(what) => write!(f, "the snapshot holds an invalid {what}"),
        }
    }
}

impl std::error::Error for SnapshotError {}

/// Builds a snapshot. Each method appends one value.
#[derive(Debug)]
pub struct Writer {
    format: Format,
    bytes: Vec<u8>,
    bodies: Bodies,
}

impl Default for Writer {
    fn default() -> Self {
        Self::of(Format::NEWEST)
    }
}

impl Writer {
    /// An empty snapshot of the newest format, or of something that has no formats.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty snapshot of this format.
    pub fn of(format: Format) -> Self {
        Self::naming(Bodies::default(), format)
    }

    /// An empty snapshot of this format, for a reader that has been given these bodies.
    pub fn naming(bodies: Bodies, format: Format) -> Self {
        Self { format, bytes: Vec::new(), bodies }
    }

    /// The shared bytes that are named so far.
    pub fn bodies(&self) -> &Bodies {
        &self.bodies
    }

    /// The same, for the next snapshot of the same reader.
    pub fn into_bodies(self) -> Bodies {
        self.bodies
    }

    /// The same, to pass them on.
    pub fn bodies_mut(&mut self) -> &mut Bodies {
        &mut self.bodies
    }

    /// The format to be written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The snapshot so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The finished snapshot.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// One to ten bytes, fewer for smaller numbers.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }

    /// One byte, 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.u8(value.into());
    }

    /// A length or a count of things in memory, as a varint.
    pub fn count(&mut self, count: usize) {
        self.varint(count as u64);
    }

    /// A length and the bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    /// The number of bytes that others hold as well. Their reader has to be given
    /// [those](Self::bodies) apart from the snapshot.
    pub fn shared(&mut self, bytes: &SharedBytes) {
        let number = self.bodies.number(bytes);
        self.count(number);
    }

    /// A length in bytes and the text.
    pub fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Nanoseconds in eight bytes; what is longer than 584 years is shortened to that.
    pub fn duration(&mut self, time: Duration) {
        self.u64(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// A point in time that is not later than `now`, as its distance from it: the reader has another
    /// clock.
    pub fn past(&mut self, past: Tick, now: Tick) {
        self.ticks(now.ticks().saturating_sub(past.ticks()));
    }

    /// A point in time that is not earlier than `now`, or never.
    pub fn future(&mut self, future: Tick, now: Tick) {
        let distance = future.ticks().saturating_sub(now.ticks());
        self.ticks(if future == Tick::NEVER { u32::MAX } else { distance });
    }

    fn ticks(&mut self, ticks: u32) {
        match self.format.has_short_times() {
            true => self.varint(ticks.into()),
            false => self.u32(ticks),
        }
    }

    /// Whether there is a value, and the value as `write` writes it.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// A record that a reader may skip if it does not know `tag`.
    ///
    /// # Panics
    /// If `tag` has bit 15 set: tags are constants of 15 bits.
    pub fn record(&mut self, tag: u16, write: impl FnOnce(&mut Self)) {
        self.any_record(tag, 0, write);
    }

    /// A record without which the snapshot must not be used.
    ///
    /// # Panics
    /// If `tag` has bit 15 set: tags are constants of 15 bits.
    pub fn required_record(&mut self, tag: u16, write: impl FnOnce(&mut Self)) {
        self.any_record(tag, MUST_UNDERSTAND, write);
    }

    /// A record without which the snapshot must not be used, of something that may turn out not to
    /// be savable: then nothing of it is left.
    ///
    /// # Errors
    /// What `write` returns.
    ///
    /// # Panics
    /// If `tag` has bit 15 set: tags are constants of 15 bits.
    pub fn try_required_record<E>(
        &mut self,
        tag: u16,
        write: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = self.bytes.len();
        let mut outcome = Ok(());
        self.required_record(tag, |writer| outcome = write(writer));
        if outcome.is_err() {
            self.bytes.truncate(before);
        }
        outcome
    }

    fn any_record(&mut self, tag: u16, flag: u16, write: impl FnOnce(&mut Self)) {
        assert!(tag & MUST_UNDERSTAND == 0, "tag {tag} has more than 15 bits");
        self.u16(tag | flag);
        let length_at = self.bytes.len();
        self.u64(0);
        let body_at = self.bytes.len();
        write(self);
        let length = (self.bytes.len() - body_at) as u64;
        self.bytes[length_at..body_at].copy_from_slice(&length.to_le_bytes());
    }

    /// Bytes as they are; the reader has to know how many.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

/// Reads a snapshot back. Each method takes one value off the front; after an error, what it
/// returns means nothing.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    format: Format,
    rest: &'a [u8],
    bodies: &'a [SharedBytes],
}

/// One record of a snapshot, as [`Reader::record`] returns it.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// What kind of record it is, 15 bits.
    pub tag: u16,
    /// Whether a reader that does not know the tag must refuse the snapshot.
    pub must_understand: bool,
    /// What is in it.
    pub body: Reader<'a>,
}

impl Record<'_> {
    /// For the tags a reader does not know: passes over the record.
    ///
    /// # Errors
    /// [`SnapshotError::UnknownRecord`] if it must be understood.
    pub fn skip_unknown(self) -> Result<(), SnapshotError> {
        match self.must_understand {
            true => Err(SnapshotError::UnknownRecord(self.tag)),
            false => Ok(()),
        }
    }
}

/// Every method fails with [`SnapshotError::Truncated`] when too few bytes are left; other errors
/// are named.
impl<'a> Reader<'a> {
    /// A reader of all of `bytes`, which are of the newest format, or of something that has no
    /// formats.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::of(Format::NEWEST, bytes)
    }

    /// A reader of all of `bytes`, which are of this format.
    pub fn of(format: Format, bytes: &'a [u8]) -> Self {
        Self { format, rest: bytes, bodies: &[] }
    }

    /// The same reader, which has been given these bodies.
    pub fn with_bodies(self, bodies: &'a [SharedBytes]) -> Self {
        Self { bodies, ..self }
    }

    /// The format that is read.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Number of bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Ends reading.
    ///
    /// # Errors
    /// [`SnapshotError::TrailingBytes`] if there is more.
    pub fn finish(self) -> Result<(), SnapshotError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(SnapshotError::TrailingBytes(left)),
        }
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, SnapshotError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, SnapshotError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, SnapshotError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, SnapshotError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// What [`Writer::past`] wrote, on the reader's own clock. What lies further back than that
    /// reaches counts as its start.
    pub fn past(&mut self, now: Tick) -> Result<Tick, SnapshotError> {
        Ok(Tick::new(now.ticks().saturating_sub(self.ticks()?)))
    }

    /// What [`Writer::future`] wrote, on the reader's own clock. What would be later than all ticks
    /// never comes.
    pub fn future(&mut self, now: Tick) -> Result<Tick, SnapshotError> {
        Ok(Tick::new(now.ticks().saturating_add(self.ticks()?)))
    }

    fn ticks(&mut self) -> Result<u32, SnapshotError> {
        match self.format.has_short_times() {
            true => self.varint()?.try_into().map_err(|_| SnapshotError::Invalid("time")),
            false => self.u32(),
        }
    }

    /// One to ten bytes.
    ///
    /// # Errors
    /// [`SnapshotError::InvalidVarint`].
    pub fn varint(&mut self) -> Result<u64, SnapshotError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            let overflows = (bits << shift) >> shift != bits;
            let longer_than_needed = byte == 0 && shift > 0;
            if overflows || longer_than_needed {
                return Err(SnapshotError::InvalidVarint);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(SnapshotError::InvalidVarint)
    }

    /// A byte that is 0 or 1.
    ///
    /// # Errors
    /// [`SnapshotError::Invalid`] for any other.
    pub fn bool(&mut self) -> Result<bool, SnapshotError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(SnapshotError::Invalid("truth value")),
        }
    }

    /// A count of items that take at least `item_bytes_min` (at least 1) bytes each. It is safe
    /// to reserve room for that many: there are bytes for all of them.
    ///
    /// # Errors
    /// [`SnapshotError::InvalidVarint`]; [`SnapshotError::Truncated`] for more than can follow.
    pub fn count(&mut self, item_bytes_min: usize) -> Result<usize, SnapshotError> {
        let count = self.varint()?;
        let possible = self.rest.len() / item_bytes_min.max(1);
        match usize::try_from(count) {
            Ok(count) if count <= possible => Ok(count),
            _ => Err(SnapshotError::Truncated),
        }
    }

    /// A length and that many bytes.
    ///
    /// # Errors
    /// [`SnapshotError::InvalidVarint`] in the length.
    pub fn bytes(&mut self) -> Result<&'a [u8], SnapshotError> {
        let length = self.varint()?;
        self.take(length)
    }

    /// Bytes that others hold as well.
    ///
    /// # Errors
    /// [`SnapshotError::InvalidVarint`]; [`SnapshotError::Invalid`] if the reader does not have them.
    pub fn shared(&mut self) -> Result<SharedBytes, SnapshotError> {
        let number = self.varint()?;
        let bytes = usize::try_from(number).ok().and_then(|number| self.bodies.get(number));
        bytes.cloned().ok_or(SnapshotError::Invalid("number of shared bytes"))
    }

    /// A length in bytes and text.
    ///
    /// # Errors
    /// [`SnapshotError::InvalidVarint`] in the length, [`SnapshotError::InvalidUtf8`].
    pub fn str(&mut self) -> Result<&'a str, SnapshotError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| SnapshotError::InvalidUtf8)
    }

    /// Eight bytes of nanoseconds.
    pub fn duration(&mut self) -> Result<Duration, SnapshotError> {
        Ok(Duration::from_nanos(self.u64()?))
    }

    /// What `read` returns, if there is a value.
    ///
    /// # Errors
    /// [`SnapshotError::Invalid`] if it is not said whether there is one; those of `read`.
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, SnapshotError>,
    ) -> Result<Option<T>, SnapshotError> {
        match self.bool()? {
            true => read(self).map(Some),
            false => Ok(None),
        }
    }

    /// The next record; `None` at the end.
    ///
    /// ```
    /// # use steadfast::base::snapshot::{Reader, SnapshotError, Writer};
    /// # fn load(bytes: &[u8]) -> Result<u32, SnapshotError> {
    /// let mut reader = Reader::new(bytes);
    /// let mut size = 0;
    /// while let Some(mut record) = reader.record()? {
    ///     match record.tag {
    ///         1 => size = record.body.u32()?,
    ///         _ => record.skip_unknown()?,
    ///     }
    /// }
    /// # Ok(size)
    /// # }
    /// # let mut writer = Writer::new();
    /// # writer.record(7, |_| ());
    /// # writer.required_record(1, |writer| writer.u32(5));
    /// # assert_eq!(load(writer.as_bytes()), Ok(5));
    /// ```
    pub fn record(&mut self) -> Result<Option<Record<'a>>, SnapshotError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let head = self.u16()?;
        let length = self.u64()?;
        Ok(Some(Record {
            tag: head & !MUST_UNDERSTAND,
            must_understand: head & MUST_UNDERSTAND != 0,
            body: Reader { rest: self.take(length)?, ..*self },
        }))
    }

    /// `N` bytes as they are.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(SnapshotError::Truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], SnapshotError> {
        let length = usize::try_from(length).map_err(|_| SnapshotError::Truncated)?;
        let split = self.rest.split_at_checked(length);
        let (taken, rest) = split.ok_or(SnapshotError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
