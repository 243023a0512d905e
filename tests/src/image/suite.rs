//! The steps, what each needs, and the one box that they share.

use std::path::PathBuf;
use std::time::Instant;

use super::card::Card;
use super::guest::{Guest, Machine, Start};
use super::steps::{cuts, faults, first, mistakes};
use super::table::{Table, load};
use super::world::World;
use super::{ImageError, doing, wrong};
use crate::harness::{TempDir, temp_dir};

/// What the box says on its console when all is well.
pub(super) const WELL: &str = "Broker:  connected";

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The image.
    pub image: PathBuf,
    /// Power cuts.
    pub cuts: u32,
    /// Only what shows that the image is sound.
    pub short: bool,
    /// The steps to do, by name; all (or the short ones) when empty.
    pub only: Vec<String>,
    /// For what is left to chance.
    pub seed: u64,
}

/// A step of the test.
struct Step {
    name: &'static str,
    about: &'static str,
    /// Part of the short form.
    short: bool,
    perform: fn(&mut Bench) -> Result<(), ImageError>,
}

/// In this order: the box that `first` makes is the one that most others use.
const STEPS: [Step; 16] = [
    Step {
        name: "first",
        about: "first boot; the report and the picture on the card",
        short: true,
        perform: first::first,
    },
    Step {
        name: "second",
        about: "pairing with what the card says, a file, memory, the boot's budget",
        short: true,
        perform: first::second,
    },
    Step { name: "tunnel", about: "power to a file through the tunnel", short: true, perform: first::tunnel },
    Step { name: "kill", about: "kill -9", short: true, perform: faults::kill },
    Step { name: "wedge-one", about: "the farm's loop hangs", short: true, perform: faults::wedge_one },
    Step { name: "wedge", about: "each loop hangs in turn", short: false, perform: faults::wedge },
    Step { name: "panic", about: "the kernel panics", short: false, perform: faults::panic },
    Step {
        name: "hang",
        about: "nothing runs any more: the hardware's watchdog",
        short: false,
        perform: faults::hang,
    },
    Step { name: "cuts", about: "power cuts at random moments", short: true, perform: cuts::cuts },
    Step { name: "typo", about: "a mistake in the config", short: false, perform: mistakes::typo },
    Step { name: "token", about: "a wrong token", short: false, perform: mistakes::token },
    Step { name: "offline", about: "neither cable nor Wi-Fi", short: false, perform: mistakes::offline },
    Step { name: "away", about: "a broker that can't be reached", short: false, perform: mistakes::away },
    Step { name: "garbage", about: "noise on the state partition", short: false, perform: mistakes::garbage },
    Step { name: "full", about: "a card without room", short: false, perform: mistakes::full },
    Step { name: "clock", about: "a clock in 1970", short: false, perform: mistakes::clock },
];

/// The steps' names and what they are about, a line each.
pub fn steps() -> String {
    let lines = STEPS.iter().map(|step| {
        format!("  {:<10} {}{}\n", step.name, step.about, if step.short { " (short)" } else { "" })
    });
    lines.collect()
}

/// Performs the steps; says whether all goals were kept.
///
/// # Errors
/// [`ImageError`] when the test's own world could not be made, or a step's name
/// is none. What fails within a step is a line of the table.
pub fn perform(plan: &Plan) -> Result<bool, ImageError> {
    if let Some(name) = plan.only.iter().find(|name| !STEPS.iter().any(|step| step.name == **name)) {
        return Err(wrong(format!("no step is called {name}; there are:\n{}", steps())));
    }
    let wanted = |step: &&Step| match &plan.only[..] {
        [] if plan.short => step.short,
        [] => step.name != "wedge-one",
        only => only.iter().any(|name| name == step.name),
    };
    let mut bench = Bench::new(plan)?;
    for step in STEPS.iter().filter(wanted) {
        let began = Instant::now();
        println!("----  {}: {}", step.name, step.about);
        if let Err(error) = (step.perform)(&mut bench) {
            bench.table.row(step.name, error.to_string(), "", false);
            bench.abandon();
        }
        println!("----  {}: {:.0} s, load {}", step.name, began.elapsed().as_secs_f64(), load());
    }
    println!("\n{}\n{}", bench.table.markdown(), bench.table.result());
    Ok(bench.table.good())
}

/// What the steps work with.
pub(super) struct Bench {
    pub(super) plan: Plan,
    pub(super) world: World,
    pub(super) table: Table,
    machine: Machine,
    dir: TempDir,
    /// The card of the paired box.
    card: Option<Card>,
    /// The paired box, while it runs.
    guest: Option<Guest>,
}

impl Bench {
    fn new(plan: &Plan) -> Result<Self, ImageError> {
        let dir = temp_dir()?;
        let world = World::start(dir.path())?;
        let card = Card::flash(&plan.image, dir.path().join("image.img"))?;
        let machine = Machine::of(&card, dir.path(), world.key(), 2222)?;
        card.remove()?;
        let (plan, table) = (plan.clone(), Table::new(!plan.short));
        Ok(Self { plan, world, table, machine, dir, card: None, guest: None })
    }

    /// A file of the test.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A card as it is sold with the image, with an installer's config.
    pub(super) fn flash(&self, name: &str, config: &str) -> Result<Card, ImageError> {
        let card = Card::flash(&self.plan.image, self.file(&format!("{name}.img")))?;
        card.put("farm-agent.toml", config.as_bytes())?;
        Ok(card)
    }

    /// Starts a box; the paired one has no power from then on: a second box would
    /// get no port for its SSH, and not start.
    pub(super) fn start(&mut self, card: &Card, start: Start<'_>) -> Result<Guest, ImageError> {
        if let Some(guest) = self.guest.take() {
            guest.cut()?;
        }
        self.machine.start(card, start)
    }

    /// From here on this is the paired box's card.
    pub(super) fn keep(&mut self, card: Card) {
        self.card = Some(card);
    }

    /// The paired box with power; first it is made, when there is none.
    pub(super) fn on(&mut self) -> Result<(&Guest, &mut World, &mut Table), ImageError> {
        let card = self.paired()?;
        if self.guest.is_none() {
            let guest = self.start(&card, Start::default());
            self.card = Some(card);
            let guest = guest?;
            guest.says(WELL)?;
            self.world.serves()?;
            self.guest = Some(guest);
        } else {
            self.card = Some(card);
        }
        match &self.guest {
            Some(guest) => Ok((guest, &mut self.world, &mut self.table)),
            None => Err(wrong("no box")),
        }
    }

    /// The same box, already with power, for the steps to come.
    pub(super) fn running(&mut self, guest: Guest) {
        self.guest = Some(guest);
    }

    /// Takes the card out of the paired box, whose power is cut.
    pub(super) fn off(&mut self) -> Result<Card, ImageError> {
        let card = self.paired()?;
        if let Some(guest) = self.guest.take() {
            guest.cut()?;
        }
        Ok(card)
    }

    /// The card of a box that was made and has not been paired; first it is
    /// made, when there is none.
    pub(super) fn invited(&mut self) -> Result<Card, ImageError> {
        if self.card.is_none() || !self.world.is_invited() {
            first::first(self)?;
        }
        self.card()
    }

    fn paired(&mut self) -> Result<Card, ImageError> {
        if self.card.is_none() || !self.world.is_paired() {
            first::second(self)?;
        }
        self.card()
    }

    fn card(&mut self) -> Result<Card, ImageError> {
        self.card.take().ok_or_else(|| wrong("the box's card is gone"))
    }

    /// A copy of the paired box's card, to be spoilt.
    pub(super) fn copy(&mut self, name: &str) -> Result<Card, ImageError> {
        let card = self.off()?;
        let copy = card.copy_to(self.file(&format!("{name}.img")));
        self.card = Some(card);
        copy
    }

    /// After a step that failed: the next one starts the box anew.
    fn abandon(&mut self) {
        if let Some(guest) = self.guest.take() {
            let _gone = guest.cut();
        }
    }

    /// What the card's report must say for itself, read by another computer
    /// while the box runs.
    pub(super) fn taken(&self, card: &Card, name: &str) -> Result<Vec<u8>, ImageError> {
        let to = self.file("taken");
        card.take(name, &to)?;
        doing("reading a file of the card", std::fs::read(&to))
    }
}
