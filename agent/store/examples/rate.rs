//! Durable commits per second, one writer and a hundred, and what they cost the
//! disk: `cargo run --release -p farm-store --example rate [DIRECTORY]`.
//!
//! Each commit holds one record of 238 bytes. "disk" is what the kernel says
//! this process has dirtied (`write_bytes` of /proc/self/io), "estimate" what
//! the store says.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use farm_store::{Batch, Counters, Options, Store, Table};
use serde_bytes::ByteBuf;

const READINGS: Table<u64, ByteBuf> = Table::new("readings");
const RECORD_BYTES: usize = 238;
const RUN: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let path = match std::env::args_os().nth(1) {
        Some(path) => PathBuf::from(path),
        None => temporary.path().join("state"),
    };
    let started = Instant::now();
    let (store, report) = farm_store::open(&path, Options::default())?;
    println!("open: {:.1} ms, alarms: {:?}", started.elapsed().as_secs_f64() * 1e3, report.alarms);
    for writers in [1, 100] {
        run(&store, writers)?;
    }
    println!("RSS: {} KiB, threads: {}", status("VmRSS:")?, status("Threads:")?);
    let started = Instant::now();
    store.close_blocking();
    println!("close: {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    let started = Instant::now();
    let (_store, _) = farm_store::open(&path, Options::default())?;
    println!("open again: {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn run(store: &Store, writers: u64) -> Result<(), Box<dyn Error>> {
    let before = store.counters();
    let dirtied = write_bytes()?;
    let started = Instant::now();
    let executor = smol::LocalExecutor::new();
    smol::block_on(executor.run(async {
        let tasks: Vec<_> = (0..writers)
            .map(|writer| executor.spawn(write_until(store.clone(), writer, started + RUN)))
            .collect();
        for task in tasks {
            task.await?;
        }
        Ok::<_, farm_store::Error>(())
    }))?;
    let seconds = started.elapsed().as_secs_f64();
    print_run(writers, seconds, &before, &store.counters(), write_bytes()? - dirtied);
    Ok(())
}

async fn write_until(store: Store, writer: u64, end: Instant) -> Result<(), farm_store::Error> {
    let mut n = 0;
    while Instant::now() < end {
        // A queue of up to a thousand records, trimmed by a hundred at once.
        let key = |n| (writer << 32) + n;
        let mut batch = Batch::new();
        batch.put(&READINGS, &key(n), &ByteBuf::from(vec![n as u8; RECORD_BYTES]))?;
        if n >= 1000 && n % 100 == 0 {
            for old in n - 1000..n - 900 {
                batch.remove(&READINGS, &key(old))?;
            }
        }
        store.commit(batch).await?;
        n += 1;
    }
    Ok(())
}

fn print_run(writers: u64, seconds: f64, before: &Counters, after: &Counters, dirtied: u64) {
    let commits = after.batches - before.batches;
    let groups = after.groups - before.groups;
    let per_commit = |bytes: u64| bytes as f64 / commits as f64 / 1e3;
    println!(
        "{writers:>3} writers: {:>6.0} durable commits/s, {:>5.0} fsyncs/s ({:.1} commits each), \
         {:.2} KB/commit on disk (estimate {:.2})",
        commits as f64 / seconds,
        groups as f64 / seconds,
        commits as f64 / groups as f64,
        per_commit(dirtied),
        per_commit(after.bytes_written - before.bytes_written),
    );
}

fn write_bytes() -> Result<u64, Box<dyn Error>> {
    field(Path::new("/proc/self/io"), "write_bytes:")
}

fn status(name: &str) -> Result<u64, Box<dyn Error>> {
    field(Path::new("/proc/self/status"), name)
}

fn field(file: &Path, name: &str) -> Result<u64, Box<dyn Error>> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find(|line| line.starts_with(name)).ok_or("no such field")?;
    Ok(line.split_whitespace().nth(1).ok_or("an empty field")?.parse()?)
}
