//! How the C library's allocator deals with memory that was freed. Beside one
//! call of the store's (`grip`) the only unsafe code of the program.
#![allow(unsafe_code)]

/// From this size on, in bytes, memory comes from the operating system and goes
/// back to it alone: the C library's own value, but for good. By itself it
/// raises it to the largest that was ever freed, which is the database's page
/// table of 21 MB, and from then on buffers of half a megabyte lie among small
/// ones: 3 MB that can't be given back.
#[cfg(target_env = "gnu")]
const LARGE: nix::libc::c_int = 128 << 10;

/// Sets the allocator up. To be called first, while there is one thread.
pub fn set_up() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a C function that takes two numbers by value, checks both, and
    // locks what it changes.
    let set = unsafe { nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, LARGE) };
    #[cfg(target_env = "gnu")]
    if set == 0 {
        // Costs memory, nothing else.
        tracing::debug!("the allocator decides by itself what is large");
    }
}

/// Gives free memory back to the operating system: a millisecond for a few MB,
/// so only after something large has ended.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a C function that takes a number by value, may be called at any
    // time from any thread (malloc_trim(3): MT-Safe), and only touches memory
    // that is not allocated.
    let _released = unsafe { nix::libc::malloc_trim(0) };
}
