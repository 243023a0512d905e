//! Opening a TUN device: the one system call of the lab that no library wraps.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc::{IFF_NO_PI, IFF_TUN, IFNAMSIZ, c_char, c_int, c_short, ifreq};

nix::ioctl_write_ptr_bad!(
    /// TUNSETIFF: makes the open file the other side of this device.
    set_interface,
    nix::request_code_write!(b'T', 202, size_of::<c_int>()),
    ifreq
);

/// A new device of this name in the calling thread's namespace; reads and
/// writes move one IP packet each. It goes with its last open file.
pub(super) fn open(name: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut ifr_name: [c_char; IFNAMSIZ] = [0; IFNAMSIZ];
    // The last byte stays zero.
    for (to, byte) in ifr_name[..IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = byte.cast_signed();
    }
    let flags = (IFF_TUN | IFF_NO_PI) as c_short;
    let request = ifreq { ifr_name, ifr_ifru: nix::libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    // SAFETY: the descriptor is open for as long as `file` lives, and TUNSETIFF
    // only reads a `struct ifreq` from the pointer, which is a whole one.
    unsafe { set_interface(file.as_raw_fd(), &raw const request) }?;
    Ok(file)
}
