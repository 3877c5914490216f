//! What one worker of a predecessor sends to one of its successor, behind the descriptors: the
//! states of connections, in an [`envelope`].
//!
//! ```text
//! Connection*  its key, its records (see record.rs)
//! Bytes*       a connection's key, an offset, and from there on what has come of its unfinished
//!              message: they go ahead, so that the connection is small when its time comes
//! Body*        a number, and bytes that out queues name by it: once for all states of a lane,
//!              however many connections wait for them
//! Build        the version that wrote it, for people     the tests' next build only; optional
//! ```

use crate::base::envelope::{self, EnvelopeError, HEAD_BYTES};
use crate::base::format::Format;
use crate::base::meter::Meter;
use crate::base::shared::{Bodies, SharedBytes};
use crate::base::slab::Key;
use crate::base::snapshot::{Reader, SnapshotError, Writer};

/// Tags of the records. A tag is never used for anything else again.
mod tag {
    pub(super) const CONNECTION: u16 = 1;
    pub(super) const BYTES: u16 = 3;
    pub(super) const BODY: u16 = 4;
    #[cfg(feature = "format-next")]
    pub(super) const BUILD: u16 = 2;
}

/// States that are being written.
#[derive(Debug)]
pub struct States {
    writer: Writer,
    connections: u64,
}

impl States {
    /// None yet, to be written in this format.
    pub fn new(format: Format) -> Self {
        Self::after(Bodies::default(), format)
    }

    /// The same, for a reader that has been given these bodies with states before.
    pub fn after(bodies: Bodies, format: Format) -> Self {
        let states = Self { writer: Writer::naming(bodies, format), connections: 0 };
        #[cfg(feature = "format-next")]
        let states = states.with_build();
        states
    }

    /// In every format: it is an example of what an older build of the same one passes over.
    #[cfg(feature = "format-next")]
    fn with_build(mut self) -> Self {
        self.writer.record(tag::BUILD, |writer| writer.str(env!("CARGO_PKG_VERSION")));
        self
    }

    /// Adds the connection of this key. If `save` fails nothing is added.
    ///
    /// # Errors
    /// What `save` returns.
    pub fn add<E>(
        &mut self,
        key: Key,
        save: impl FnOnce(&mut Writer) -> Result<(), E>,
    ) -> Result<(), E> {
        self.writer.try_required_record(tag::CONNECTION, |writer| {
            writer.u64(key.to_u64());
            save(writer)
        })?;
        self.connections += 1;
        Ok(())
    }

    /// Adds bytes of the connection's unfinished message, which begin `offset` bytes into it.
    pub fn add_bytes(&mut self, key: Key, offset: usize, bytes: &[u8]) {
        self.writer.required_record(tag::BYTES, |writer| {
            writer.u64(key.to_u64());
            writer.count(offset);
            writer.bytes(bytes);
        });
    }

    /// Has a body go ahead of the states that name it.
    pub fn add_body(&mut self, bytes: &SharedBytes) {
        self.writer.bodies_mut().number(bytes);
    }

    /// The bodies that their reader knows, or gets with them.
    pub fn bodies(&self) -> &Bodies {
        self.writer.bodies()
    }

    /// The format they are written in.
    pub fn format(&self) -> Format {
        self.writer.format()
    }

    /// What has been written so far.
    pub fn body(&self) -> &[u8] {
        self.writer.as_bytes()
    }

    /// Bytes that there are to be sent: those, and bodies that they are the first to name.
    pub fn bytes_to_send(&self) -> usize {
        self.body().len() + self.writer.bodies().news_len()
    }

    /// The bodies that have been named.
    pub fn into_bodies(self) -> Bodies {
        self.writer.into_bodies()
    }

    /// How many have been added.
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// The envelope: its head, and its body, now with what it is the first to name.
    pub fn sealed(&mut self) -> ([u8; HEAD_BYTES], &[u8]) {
        let news = self.writer.bodies_mut().take_news();
        let news: Vec<_> = news.map(|(number, bytes)| (number, bytes.clone())).collect();
        for (number, bytes) in news {
            self.writer.required_record(tag::BODY, |writer| {
                writer.count(number);
                writer.bytes(&bytes);
            });
        }
        (envelope::head(self.format(), self.body()), self.body())
    }
}

/// What there is among states.
#[derive(Debug)]
pub enum Saved<'a> {
    /// A connection: its key where it comes from, and its records.
    Connection(Key, Reader<'a>),
    /// Bytes of a connection's unfinished message.
    Bytes {
        /// Its key where it comes from.
        key: Key,
        /// How far into the message they begin.
        offset: u64,
        /// They.
        bytes: &'a [u8],
    },
}

/// States that are being read.
#[derive(Debug, Clone, Copy)]
pub struct SavedStates<'a>(Reader<'a>);

impl<'a> SavedStates<'a> {
    /// Opens the envelope.
    ///
    /// # Errors
    /// See [`EnvelopeError`].
    pub fn open(sealed: &'a [u8]) -> Result<Self, EnvelopeError> {
        envelope::open(sealed).map(Self)
    }

    /// The format they are written in.
    pub fn format(&self) -> Format {
        self.0.format()
    }

    /// Adds the bodies there are to those that came with states before; they count with `meter`.
    ///
    /// # Errors
    /// As [`SavedStates::read_next`]; one is missing.
    pub fn take_bodies(
        mut self,
        bodies: &mut Vec<SharedBytes>,
        meter: &Meter,
    ) -> Result<(), SnapshotError> {
        while let Some(mut record) = self.0.record()? {
            if record.tag == tag::BODY {
                if record.body.varint()? != bodies.len() as u64 {
                    return Err(SnapshotError::Invalid("number of shared bytes"));
                }
                bodies.push(SharedBytes::new(record.body.bytes()?.to_vec(), meter));
                record.body.finish()?;
            }
        }
        Ok(())
    }

    /// The same states, which may name these bodies.
    pub fn with_bodies(self, bodies: &'a [SharedBytes]) -> Self {
        Self(self.0.with_bodies(bodies))
    }

    /// The next of what there is, but for [bodies](Self::take_bodies).
    ///
    /// # Errors
    /// The bytes are no states, or hold what this build must understand and does not.
    pub fn read_next(&mut self) -> Result<Option<Saved<'a>>, SnapshotError> {
        while let Some(mut record) = self.0.record()? {
            match record.tag {
                tag::CONNECTION => {
                    let key = load_key(&mut record.body)?;
                    return Ok(Some(Saved::Connection(key, record.body)));
                }
                tag::BYTES => {
                    let key = load_key(&mut record.body)?;
                    let offset = record.body.varint()?;
                    let bytes = record.body.bytes()?;
                    record.body.finish()?;
                    return Ok(Some(Saved::Bytes { key, offset, bytes }));
                }
                tag::BODY => {}
                _ => record.skip_unknown()?,
            }
        }
        Ok(None)
    }
}

fn load_key(reader: &mut Reader<'_>) -> Result<Key, SnapshotError> {
    Key::from_u64(reader.u64()?).ok_or(SnapshotError::Invalid("key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u64) -> Key {
        Key::from_u64(1 << 32 | index).expect("of the first generation")
    }

    fn sealed(states: &mut States) -> Vec<u8> {
        let (head, body) = states.sealed();
        [&head[..], body].concat()
    }

    fn next_connection<'a>(saved: &mut SavedStates<'a>) -> (Key, Reader<'a>) {
        match saved.read_next() {
            Ok(Some(Saved::Connection(key, state))) => (key, state),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bytes_of_a_message_are_there_with_their_place() {
        let mut states = States::new(Format::NEWEST);
        states.add_bytes(key(3), 70_000, b"some more");
        assert_eq!(states.connections(), 0);
        let sealed = sealed(&mut states);
        let mut saved = SavedStates::open(&sealed).unwrap();
        let Ok(Some(Saved::Bytes { key: of, offset, bytes })) = saved.read_next() else {
            panic!("they are there");
        };
        assert_eq!((of, offset, bytes), (key(3), 70_000, &b"some more"[..]));
        assert!(saved.read_next().unwrap().is_none());
    }

    #[test]
    fn bodies_come_once_for_all_states_of_a_reader() {
        let meter = Meter::default();
        let [first, second] = [1, 2].map(|byte| SharedBytes::new(vec![byte; 1_000], &meter));
        let name = |bytes: &SharedBytes| {
            let bytes = bytes.clone();
            move |writer: &mut Writer| {
                writer.shared(&bytes);
                Ok::<_, ()>(())
            }
        };
        let mut states = States::new(Format::NEWEST);
        (0..5).for_each(|index| states.add(key(index), name(&first)).unwrap());
        assert!((1_000..1_200).contains(&states.bytes_to_send()));
        let files = [sealed(&mut states), {
            states = States::after(states.into_bodies(), Format::NEWEST);
            states.add(key(5), name(&first)).unwrap();
            assert!(states.bytes_to_send() < 100);
            states.add(key(6), name(&second)).unwrap();
            sealed(&mut states)
        }];
        let (theirs, mut bodies) = (Meter::default(), vec![]);
        let mut loaded = vec![];
        for file in &files {
            let saved = SavedStates::open(file).unwrap();
            saved.take_bodies(&mut bodies, &theirs).unwrap();
            let mut saved = saved.with_bodies(&bodies);
            while let Some(Saved::Connection(_, mut state)) = saved.read_next().unwrap() {
                loaded.push(state.shared().unwrap());
            }
        }
        assert_eq!((loaded.len(), theirs.total()), (7, 2_000));
        assert!(loaded[..6].iter().all(|bytes| bytes.id() == loaded[0].id()));
        assert_eq!((loaded[0][0], loaded[6][0]), (1, 2));
        // A file whose predecessor is missing, and one that comes again.
        let later = SavedStates::open(&files[1]).unwrap();
        assert!(later.take_bodies(&mut vec![], &theirs).is_err());
        assert!(later.take_bodies(&mut bodies, &theirs).is_err());
        let (_, mut state) = next_connection(&mut later.with_bodies(&[]));
        assert!(state.shared().is_err());
    }

    #[test]
    fn what_was_added_is_there_in_every_format() {
        for format in Format::all() {
            let mut states = States::new(format);
            for index in 0..3 {
                let outcome = states.add(key(index), |writer| {
                    writer.str("some of it");
                    if index == 1 { Err("it cannot be saved") } else { Ok(()) }
                });
                assert_eq!(outcome.is_err(), index == 1);
            }
            assert_eq!(states.connections(), 2);
            let sealed = sealed(&mut states);
            let mut saved = SavedStates::open(&sealed).unwrap();
            assert_eq!(saved.format(), format);
            for index in [0, 2] {
                let (of, mut state) = next_connection(&mut saved);
                assert_eq!(
                    (of, state.str(), state.format()),
                    (key(index), Ok("some of it"), format)
                );
            }
            assert!(saved.read_next().unwrap().is_none());
        }
    }

    #[test]
    fn what_is_unknown_is_passed_over_unless_it_must_not_be() {
        for required in [false, true] {
            let mut states = States::new(Format::NEWEST);
            match required {
                true => states.writer.required_record(99, |writer| writer.u8(1)),
                false => states.writer.record(99, |writer| writer.u8(1)),
            }
            states.add(key(7), |_| Ok::<_, ()>(())).unwrap();
            let sealed = sealed(&mut states);
            let mut saved = SavedStates::open(&sealed).unwrap();
            match required {
                true => assert_eq!(saved.read_next().err(), Some(SnapshotError::UnknownRecord(99))),
                false => assert_eq!(next_connection(&mut saved).0, key(7)),
            }
        }
    }
}
