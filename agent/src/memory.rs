//! What the C library's allocator keeps of memory that was freed.
//!
//! By itself it gives back only what happens to lie at a heap's end. The only
//! unsafe code of the program.
#![allow(unsafe_code)]

/// Gives free memory back to the operating system: a millisecond for a few MB,
/// so only after something large has ended.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a C function that takes a number by value, may be called at any
    // time from any thread (malloc_trim(3): MT-Safe), and only touches memory
    // that is not allocated.
    let _released = unsafe { nix::libc::malloc_trim(0) };
}
