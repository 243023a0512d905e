//! From a state directory, whatever it holds, to a working database: used at
//! open and again after a failure.

use std::{ops::ControlFlow, path::PathBuf, time::Duration};

use crate::{
    aside::{self, Aside},
    batch::{MAX_BATCH_BYTES, Writes, write_bytes},
    codec,
    engine::{self, Caution, Engine},
    error::{Doing, OpenError},
    failure::Failure,
    files,
    layout::Layout,
    meta::{META_KEY, Meta},
    mirror::{self, Found},
    reconcile::{Loaded, Plan, reconcile},
    report::{Alarm, OpenReport},
    restart::{Opening, Orders},
    table::{RawRange, VITAL},
    vital::Vital,
};

/// How to open a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The newest schema this version of the program knows. Data of a newer
    /// one is refused; that of an older one is the caller's to migrate.
    pub schema: u32,
    /// Now, in seconds since 1970: names what is moved aside. A wrong clock
    /// does no harm.
    pub wall_time: u64,
    /// How long to wait for a store that this process itself is about to
    /// release. sled lets go of its file asynchronously, within milliseconds
    /// as a rule; 5 s is for a card that stalls.
    pub lock_wait: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options { schema: 0, wall_time: 0, lock_wait: Duration::from_secs(5) }
    }
}

/// A working database.
pub(crate) struct Up {
    pub(crate) engine: Engine,
    pub(crate) meta: Meta,
    pub(crate) vital: Vital,
    /// The commit that the mirror knows of.
    pub(crate) mirrored: u64,
    pub(crate) report: OpenReport,
}

/// Opens what is there, makes what is not, repairs what can be repaired, moves
/// aside what can't. `options.wall_time` is the time now; `orders` are those of a
/// start that ended with a panic.
pub(crate) fn bring_up(
    layout: &Layout,
    options: &Options,
    caution: Caution,
    orders: Orders,
) -> Result<Up, OpenError> {
    let _opening = Opening::new();
    let (caution, damage) = match orders {
        Orders::Nothing => (caution, None),
        Orders::ReadEverything => (Caution { distrust_cache: true, read_everything: true }, None),
        Orders::Quarantine(why) => (caution, Some(why)),
        Orders::Refuse(why) => {
            let (path, source) = (layout.store(), std::io::Error::other(why));
            return Err(OpenError::Io { doing: "opening", path, source });
        }
    };
    let mirror = mirror::find(layout)?;
    if let Some(best) = &mirror.best {
        check_schema(layout, best.meta.schema, options)?;
    }
    let mut alarms = Vec::new();
    let existing = open_existing(layout, options, caution, damage, &mirror, &mut alarms)?;
    let created = existing.is_none();
    let (engine, plan) = match existing {
        Some(existing) => existing,
        None => create(layout, options, &mirror, &mut alarms)?,
    };
    engine.settle(layout)?;

    let nothing_found = mirror.best.is_none() && mirror.damaged.is_empty();
    if nothing_found && !created && plan.meta.commit > 0 {
        alarms.push(Alarm::MirrorDamaged { file: layout.mirror(), why: "missing".to_owned() });
    }
    alarms.extend(plan.alarms);
    for (file, why) in &mirror.damaged {
        mirror::set_aside(file)?;
        alarms.push(Alarm::MirrorDamaged { file: file.clone(), why: why.clone() });
    }
    let mirrored = match &mirror.best {
        Some(best) if !plan.write_mirror && mirror.damaged.is_empty() => best.meta.commit,
        _ => {
            mirror::write(layout, &plan.meta, &plan.vital)?;
            plan.meta.commit
        }
    };
    if let Err(e) = aside::prune(layout) {
        // Costs space only, and the next open tries again.
        tracing::warn!(error = %e, "could not remove old quarantines");
    }
    for alarm in &alarms {
        tracing::error!(%alarm, path = %layout.root().display(), "store");
    }
    Ok(Up {
        engine,
        meta: plan.meta,
        vital: plan.vital,
        mirrored,
        report: OpenReport {
            created,
            schema: plan.meta.schema,
            commits: plan.meta.commit,
            vital_restored: plan.restored,
            alarms,
        },
    })
}

fn check_schema(layout: &Layout, found: u32, options: &Options) -> Result<(), OpenError> {
    if found <= options.schema {
        return Ok(());
    }
    Err(OpenError::NewerSchema { path: layout.root().to_path_buf(), found, supported: options.schema })
}

/// Opens the database that is there; `None` when there is none that can be
/// used (any more), or is known to be damaged. Then it has been moved aside, with
/// an alarm where something was lost.
fn open_existing(
    layout: &Layout,
    options: &Options,
    caution: Caution,
    damage: Option<String>,
    mirror: &Found,
    alarms: &mut Vec<Alarm>,
) -> Result<Option<(Engine, Plan)>, OpenError> {
    let store = layout.store();
    // A mirror of commit 0 is as old as the first creation itself.
    let was_used =
        mirror.best.as_ref().is_some_and(|best| best.meta.commit > 0) || !mirror.damaged.is_empty();
    if !files::is_there(&store).doing("looking at", &store)? {
        if was_used {
            alarms.push(Alarm::DatabaseMissing);
        }
        return Ok(None);
    }
    let marker = layout.marker();
    if !files::is_there(&marker).doing("looking at", &marker)? {
        let to = move_aside(layout, options, Aside::Unfinished)?;
        if was_used {
            alarms.push(Alarm::Unfinished { to });
        }
        return Ok(None);
    }
    let opened = match damage {
        Some(why) => Err(Stop::Damaged(why)),
        None => open_and_load(layout, options, caution, mirror, alarms),
    };
    let why = match opened {
        Ok(opened) => return Ok(Some(opened)),
        Err(Stop::Damaged(why)) => why,
        Err(Stop::Error(e)) => return Err(e),
    };
    let to = move_aside(layout, options, Aside::Corrupt)?;
    alarms.push(Alarm::Quarantined { to, why });
    Ok(None)
}

fn move_aside(layout: &Layout, options: &Options, kind: Aside) -> Result<PathBuf, OpenError> {
    let to = aside::move_store(layout, kind, options.wall_time).doing("moving aside", &layout.store())?;
    tracing::warn!(from = %layout.store().display(), to = %to.display(), ?kind, "moved aside");
    Ok(to)
}

/// Makes a new database and fills it from the mirror.
fn create(
    layout: &Layout,
    options: &Options,
    mirror: &Found,
    alarms: &mut Vec<Alarm>,
) -> Result<(Engine, Plan), OpenError> {
    if mirror.best.is_none() && (!alarms.is_empty() || !mirror.damaged.is_empty()) {
        alarms.push(Alarm::VitalLost);
    }
    let store = layout.store();
    files::create_dirs(&store).doing("creating", &store)?;
    let made = (|| {
        let engine = Engine::open(layout, options.lock_wait, Caution::default())?;
        let plan = reconcile(&Loaded::default(), mirror.best.as_ref(), options.schema)
            .map_err(|why| Failure::Damaged(why.to_owned()))?;
        carry_out(&engine, &plan)?;
        Ok((engine, plan))
    })();
    made.map_err(|failure| stop_for(layout, failure).into_error(layout))
}

/// Why a database is not used.
enum Stop {
    Damaged(String),
    Error(OpenError),
}

impl Stop {
    /// For a database just made: damage there is the device's.
    fn into_error(self, layout: &Layout) -> OpenError {
        match self {
            Stop::Error(e) => e,
            Stop::Damaged(why) => {
                OpenError::Io { doing: "creating", path: layout.store(), source: std::io::Error::other(why) }
            }
        }
    }
}

fn stop_for(layout: &Layout, failure: Failure) -> Stop {
    let path = layout.store();
    match failure {
        Failure::Damaged(why) => Stop::Damaged(why),
        Failure::Busy => Stop::Error(OpenError::InUse { path: layout.root().to_path_buf(), pid: None }),
        Failure::OtherEngine(why) => Stop::Error(OpenError::OtherEngine { path, why }),
        Failure::Io(e) => Stop::Error(OpenError::from_io("opening", &path, e)),
    }
}

fn open_and_load(
    layout: &Layout,
    options: &Options,
    caution: Caution,
    mirror: &Found,
    alarms: &mut Vec<Alarm>,
) -> Result<(Engine, Plan), Stop> {
    let stop = |failure| stop_for(layout, failure);
    if engine::repair_settings(layout).map_err(|e| stop(e.into()))? {
        alarms.push(Alarm::SettingsDamaged);
    }
    let engine = Engine::open(layout, options.lock_wait, caution).map_err(stop)?;
    if caution.read_everything {
        engine.visit(&everything(), false, |_, _| ControlFlow::Continue(())).map_err(stop)?;
    }
    let loaded = load(&engine).map_err(stop)?;
    if let Some(meta) = &loaded.meta {
        check_schema(layout, meta.schema, options).map_err(Stop::Error)?;
    }
    let plan = reconcile(&loaded, mirror.best.as_ref(), options.schema)
        .map_err(|why| Stop::Damaged(why.to_owned()))?;
    carry_out(&engine, &plan).map_err(stop)?;
    Ok((engine, plan))
}

fn load(engine: &Engine) -> Result<Loaded, Failure> {
    // It is the first that is written, before the marker: a finished database
    // without it is one that sled took for empty.
    let meta = engine
        .get(META_KEY)?
        .as_deref()
        .and_then(Meta::unseal)
        .ok_or_else(|| Failure::Damaged("its first record is gone or damaged".to_owned()))?;
    let mut loaded = Loaded { meta: Some(meta), ..Loaded::default() };
    engine.visit(&all_vital(), false, |raw, stored| {
        if codec::unseal(raw, stored).is_some() {
            loaded.vital.set(raw.to_vec(), Some(stored.to_vec()));
        } else {
            loaded.damaged.push(raw.to_vec());
        }
        ControlFlow::Continue(())
    })?;
    Ok(loaded)
}

/// Writes what a plan says, the record about itself with the last part: until
/// then the mirror stays ahead, and an interrupted restore is done again.
fn carry_out(engine: &Engine, plan: &Plan) -> Result<(), Failure> {
    if !plan.write_database {
        return Ok(());
    }
    let mut part = Writes::new();
    let mut bytes = 0;
    for (raw, stored) in &plan.writes {
        bytes += write_bytes(raw, stored.as_deref());
        part.insert(raw.clone(), stored.clone());
        if bytes >= MAX_BATCH_BYTES {
            engine.commit(&part, true)?;
            part.clear();
            bytes = 0;
        }
    }
    part.insert(META_KEY.to_vec(), Some(plan.meta.seal()));
    engine.commit(&part, true)?;
    Ok(())
}

fn all_vital() -> RawRange {
    RawRange { low: std::ops::Bound::Included(vec![VITAL]), high: std::ops::Bound::Excluded(vec![VITAL + 1]) }
}

fn everything() -> RawRange {
    RawRange { low: std::ops::Bound::Unbounded, high: std::ops::Bound::Unbounded }
}
