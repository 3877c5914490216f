//! The system's allocator, with large blocks placed where the kernel is quick to copy to and from.
//!
//! AMD's processors since Zen 3 copy (`rep movsb`, which is what the kernel copies by) seven times
//! slower if the destination begins 1 to 31 bytes behind the source, both counted from the start
//! of their pages: 30 instead of 4 microseconds for 64 KiB, measured on a family 25 EPYC. Sockets
//! and buffers are at such a distance of their own accord: a segment's bytes begin where a page
//! does, glibc's blocks of 128 KiB and more 16 bytes behind that, and a frame's header of 14 bytes
//! lies between. With 64 bytes there is no header that brings the two within reach, whichever of
//! them is the source. Other processors do not care.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};

/// Blocks from this size on are placed: those that glibc puts at a page's start, and some more.
const LARGE_BYTES: usize = 64 * 1024;

/// Alignments up to this one are what the system's blocks have anyway.
const ALIGN_MAX: usize = 16;

/// What makes 64 of glibc's 16.
const SHIFT_BYTES: usize = 48;

/// For a binary's `#[global_allocator]`; see the module. `steadfast` has it, and a binary that calls
/// [`Server::run_from_args`](crate::server::Server::run_from_args) with an app of its own may.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlacingAllocator;

/// What to ask the system for, and how many bytes to leave out at its start. It depends on the
/// layout alone, so that whoever gives a block back comes to the same.
fn placed(layout: Layout) -> (Layout, usize) {
    if layout.size() < LARGE_BYTES || layout.align() > ALIGN_MAX {
        return (layout, 0);
    }
    match Layout::from_size_align(layout.size() + SHIFT_BYTES, layout.align()) {
        Ok(larger) => (larger, SHIFT_BYTES),
        // Nobody has so much memory: the system will say so.
        Err(_) => (layout, 0),
    }
}

/// The block's first byte that is the caller's.
fn beyond(block: *mut u8, shift: usize) -> *mut u8 {
    if block.is_null() { block } else { block.wrapping_add(shift) }
}

// SAFETY: every block is one of the system's, less the bytes left out at its start: these keep it
// aligned, for they are a multiple of ALIGN_MAX, and the system was asked for so many more.
unsafe impl GlobalAlloc for PlacingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (layout, shift) = placed(layout);
        // SAFETY: the size is not zero, for the caller's was not.
        beyond(unsafe { System.alloc(layout) }, shift)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (layout, shift) = placed(layout);
        // SAFETY: as in `alloc`.
        beyond(unsafe { System.alloc_zeroed(layout) }, shift)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let (layout, shift) = placed(layout);
        // SAFETY: so many bytes before the caller's block begins the one that the system gave for
        // the same layout.
        unsafe { System.dealloc(block.wrapping_sub(shift), layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, old: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller answers for it that the size is valid with this alignment.
        let new = unsafe { Layout::from_size_align_unchecked(size, old.align()) };
        let ((old_placed, shift), (new_placed, new_shift)) = (placed(old), placed(new));
        if shift == new_shift {
            let block = block.wrapping_sub(shift);
            // SAFETY: as in `dealloc`; what was left out at the start is moved along.
            let moved = unsafe { System.realloc(block, old_placed, new_placed.size()) };
            return beyond(moved, shift);
        }
        // SAFETY: both are as the caller said; the two blocks are distinct, and each has as many
        // bytes as are copied. The old one is given back only once the new one is there.
        unsafe {
            let moved = self.alloc(new);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(block, old.size().min(size));
                self.dealloc(block, old);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block with a pattern in it, which must survive whatever is done with the block.
    struct Block(*mut u8, Layout);

    impl Block {
        fn new(size: usize, align: usize) -> Self {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: no size is zero here.
            let block = unsafe { PlacingAllocator.alloc_zeroed(layout) };
            assert!(!block.is_null());
            let mut block = Self(block, layout);
            assert!(block.bytes().iter().all(|byte| *byte == 0));
            block.fill();
            block
        }

        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: it has so many bytes, which are initialised, and is borrowed with `self`.
            unsafe { std::slice::from_raw_parts_mut(self.0, self.1.size()) }
        }

        fn fill(&mut self) {
            for (at, byte) in self.bytes().iter_mut().enumerate() {
                *byte = pattern(at);
            }
        }

        fn resize(&mut self, size: usize) {
            let kept = size.min(self.1.size());
            // SAFETY: the block is the allocator's, of this layout.
            self.0 = unsafe { PlacingAllocator.realloc(self.0, self.1, size) };
            assert!(!self.0.is_null());
            // SAFETY: the rest is given a value before it is looked at.
            unsafe { self.0.add(kept).write_bytes(0, size - kept) };
            self.1 = Layout::from_size_align(size, self.1.align()).unwrap();
            let intact = self.bytes()[..kept].iter().enumerate().all(|(at, b)| *b == pattern(at));
            assert!(intact, "{kept} bytes");
            self.fill();
        }
    }

    impl Drop for Block {
        fn drop(&mut self) {
            // SAFETY: the block is the allocator's, of this layout.
            unsafe { PlacingAllocator.dealloc(self.0, self.1) }
        }
    }

    fn pattern(at: usize) -> u8 {
        (at % 251) as u8
    }

    #[test]
    fn blocks_keep_their_bytes_over_every_change_of_size() {
        let sizes = [1, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1, 300_000, 5_000_000];
        for align in [1, 16, 64, 4096] {
            for from in sizes {
                for to in sizes {
                    let mut block = Block::new(from, align);
                    block.resize(to);
                    assert_eq!(block.0 as usize % align, 0);
                    block.resize(from);
                }
            }
        }
    }

    /// Beyond 32 MiB, which is as far as glibc's threshold ever goes, it is so for certain.
    #[test]
    #[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
    fn large_blocks_begin_64_bytes_behind_a_page() {
        let mut block = Block::new(33 << 20, 1);
        assert_eq!(block.0 as usize % 4096, 64);
        block.resize(40 << 20);
        assert_eq!(block.0 as usize % 4096, 64);
    }
}
