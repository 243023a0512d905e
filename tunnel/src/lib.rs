//! Farm Tunnel: what both ends share.
