//! Farm Tunnel: the broker.
