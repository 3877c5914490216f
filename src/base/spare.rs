//! Large buffers that are used again. Memory of a megabyte that is given back to the system and
//! asked for again with every message costs a page fault for each of its pages.

/// Smaller buffers are left to the allocator, which is good at them.
pub const SPARE_BYTES_MIN: usize = 64 * 1024;

/// Most bytes kept in all.
const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Buffers of one worker that nobody uses at the moment.
#[derive(Debug, Default)]
pub struct Spare {
    buffers: Vec<Vec<u8>>,
    /// The capacities of all, added up.
    bytes: usize,
}

impl Spare {
    /// A buffer of this length; its content is arbitrary.
    pub fn take(&mut self, len: usize) -> Vec<u8> {
        let fits = |buffer: &Vec<u8>| buffer.capacity() >= len && buffer.capacity() / 4 <= len;
        let found = self.buffers.iter().position(fits).map(|index| self.buffers.swap_remove(index));
        let mut buffer = found.unwrap_or_default();
        self.bytes -= buffer.capacity();
        // What was in use before is not cleared again.
        buffer.resize(len, 0);
        buffer
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
        let buffer = spare.take(90_000);
        assert_eq!((buffer.len(), buffer[0], spare.bytes), (90_000, 2, 0));
        assert_eq!(spare.take(90_000), vec![0; 90_000]);

        spare.put(vec![3; 1_000_000]);
        assert_eq!(spare.take(100_000)[0], 0, "a large one is not spent on a small need");
        for _ in 0..20 {
            spare.put(vec![0; 1_000_000]);
        }
        assert!(spare.bytes <= KEPT_BYTES_MAX);
        assert_eq!(spare.buffers.len(), 8);
    }
}
