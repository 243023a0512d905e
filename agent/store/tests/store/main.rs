//! The store as a program sees it, on real files.

mod common;
mod damage;
mod failure;
mod group;
mod kill;
mod model;
mod recovery;
mod rest;
