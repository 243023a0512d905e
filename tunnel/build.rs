//! Gives the program the time of its build: a clock that says less is wrong.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    // Reproducible builds name the time themselves.
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=build.rs");
    let named = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse::<u64>().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    println!("cargo:rustc-env=FARM_BUILD_TIME={}", named.unwrap_or(now));
}
