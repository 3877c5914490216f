//! Large buffers that are used again. Memory of a megabyte that is given back to the system and
//! asked for again with every message costs a page fault for each of its pages.

/// Smaller buffers are left to the allocator, which is good at them.
pub const SPARE_BYTES_MIN: usize = 64 * 1024;

/// Most bytes kept in all.
pub(crate) const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Buffers of one worker that nobody uses at the moment.
#[derive(Debug, Default)]
pub struct Spare {
    buffers: Vec<Vec<u8>>,
    /// The capacities of all, added up.
    bytes: usize,
    /// One was taken since it was last asked whether they are of use.
    used: bool,
    /// Bytes that [`grow`](Self::grow) has moved so far.
    #[cfg(test)]
    pub moved: usize,
}

impl Spare {
    /// Sees to it that `buffer` has at least this capacity. Its bytes are copied once; nothing is
    /// zeroed, for the room is only ever appended to.
    pub fn grow(&mut self, buffer: &mut Vec<u8>, capacity: usize) {
        #[cfg(test)]
        {
            self.moved += buffer.len();
        }
        if capacity < SPARE_BYTES_MIN {
            buffer.reserve_exact(capacity.saturating_sub(buffer.len()));
            return;
        }
        let mut larger = self.take(capacity);
        larger.extend_from_slice(buffer);
        self.put(std::mem::replace(buffer, larger));
    }

    /// An empty buffer of at least this capacity. It looks at all that are kept, which are at most
    /// 128: each has at least [`SPARE_BYTES_MIN`].
    fn take(&mut self, capacity: usize) -> Vec<u8> {
        let fits =
            |buffer: &Vec<u8>| buffer.capacity() >= capacity && buffer.capacity() / 4 <= capacity;
        let Some(index) = self.buffers.iter().position(fits) else {
            return Vec::with_capacity(capacity);
        };
        self.used = true;
        let mut buffer = self.buffers.swap_remove(index);
        self.bytes -= buffer.capacity();
        buffer.clear();
        buffer
    }

    /// Whether some are kept.
    pub fn keeps_some(&self) -> bool {
        self.bytes > 0
    }

    /// Gives them back if none was of use since this was last called.
    pub fn give_back_unused(&mut self) {
        if !std::mem::take(&mut self.used) {
            *self = Self::default();
        }
    }

    /// Keeps a buffer, if it is large and there is room.
    pub fn put(&mut self, buffer: Vec<u8>) {
        let bytes = buffer.capacity();
        if bytes >= SPARE_BYTES_MIN && self.bytes + bytes <= KEPT_BYTES_MAX {
            self.bytes += bytes;
            self.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_buffers_come_back_and_the_rest_is_bounded() {
        let mut spare = Spare::default();
        spare.put(vec![1; SPARE_BYTES_MIN - 1]);
        spare.put(vec![2; 100_000]);
        assert_eq!(spare.bytes, 100_000);
        let mut buffer = vec![3; 10];
        spare.grow(&mut buffer, 90_000);
        assert_eq!((&*buffer, buffer.capacity(), spare.bytes), (&[3; 10][..], 100_000, 0));

        spare.put(vec![4; 1_000_000]);
        spare.grow(&mut buffer, 110_000);
        assert!(buffer.capacity() < 1_000_000, "a large one is not spent on a small need");
        assert_eq!((&*buffer, spare.bytes), (&[3; 10][..], 1_100_000));
        assert_eq!(spare.moved, 20);
        for _ in 0..20 {
            spare.put(vec![0; 1_000_000]);
        }
        assert!(spare.bytes <= KEPT_BYTES_MAX);
        assert_eq!(spare.buffers.len(), 9);

        spare.give_back_unused();
        assert!(spare.keeps_some(), "one was taken since");
        spare.give_back_unused();
        assert!(!spare.keeps_some() && spare.buffers.capacity() == 0);
    }
}
