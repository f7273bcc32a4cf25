//! The processes that run a recipe together: rank 0 leads, the others follow its orders.
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tch::Device;
use torch_ext::{JoinOptions, ProcessGroup, World};
use trainer::Ranks;

use crate::common::failure::{Failure, Result};
use crate::launch::{self, Rendezvous};
use crate::plan::state::RunState;
use crate::recipe::Native;

/// How long the leader serves the store after its own end, so that the others can read its last order.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the others are to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Run a stage with the others.
    Stage {
        /// Its place in the plan.
        index: usize,
        /// The digest of the stage's fingerprint.
        digest: String,
        /// What has been done so far.
        state: RunState,
    },
    /// All is done.
    End,
    /// The stage was stopped by a signal, and all is saved.
    Interrupted(String),
}

/// This process and the others.
#[derive(Default)]
pub struct Team {
    world: Option<Arc<World>>,
    serves: bool,
    /// The rank on this machine.
    pub local_rank: usize,
    /// What its device, and for the leader those of all, multiply at full speed.
    pub native: Native,
    ranks: Option<Ranks>,
    orders: u64,
    left: bool,
}

impl Team {
    /// Joins the others.
    ///
    /// # Errors
    /// They cannot be reached within the time-out.
    pub fn join(place: &Rendezvous) -> Result<Team> {
        let Rendezvous { rank, size, local_rank, host, port, serve, prefix, .. } = place.clone();
        let world = World::join(&JoinOptions { host, port, serve, rank, size, timeout: launch::timeout()?, prefix });
        let world = world.map_err(|error| {
            peer(error).hint("MASTER_ADDR and MASTER_PORT are where rank 0 waits: is it up, and is there a way to it?")
        })?;
        Ok(Team { world: Some(Arc::new(world)), serves: serve, local_rank, ..Team::default() })
    }

    pub fn size(&self) -> usize {
        self.world.as_ref().map_or(1, |world| world.size())
    }

    pub fn is_leader(&self) -> bool {
        self.rank() == 0
    }

    fn rank(&self) -> usize {
        self.world.as_ref().map_or(0, |world| world.rank())
    }

    /// (i, n): of a stage that works piece by piece, the pieces of this process.
    pub fn shard(&self) -> (usize, usize) {
        (self.rank(), self.size())
    }

    /// The ranks of a training.
    ///
    /// # Errors
    /// They cannot connect with each other.
    pub fn ranks(&mut self, device: Device) -> Result<Ranks> {
        let Some(world) = &self.world else { return Ok(Ranks::default()) };
        if self.ranks.is_none() {
            self.ranks = Some(Ranks::of(Arc::new(ProcessGroup::new(world, device).map_err(peer)?)));
        }
        Ok(self.ranks.clone().unwrap_or_default())
    }

    /// Collects, on the leader, the formats that all processes multiply at full speed.
    pub fn gather_formats(&mut self, mine: Native) -> Result<()> {
        self.native = mine.clone();
        let Some(world) = &self.world else { return Ok(()) };
        if !self.is_leader() {
            let text = serde_json::to_string(&mine).map_err(|error| Failure::failed(error.to_string()))?;
            world.set(&format!("native/{}", world.rank()), &text).map_err(peer)?;
            return Ok(());
        }
        let mut all = vec![mine];
        for rank in 1..world.size() {
            let text = world.wait(&format!("native/{rank}"), rank).map_err(peer)?;
            let native = serde_json::from_str(&text);
            all.push(native.map_err(|error| Failure::failed(format!("the device of rank {rank}: {error}")))?);
        }
        self.native = Native::of_all(all);
        Ok(())
    }

    /// The leader's next order.
    pub fn order(&mut self, order: &Order) -> Result<()> {
        let Some(world) = &self.world else { return Ok(()) };
        let text = serde_json::to_string(order).map_err(|error| Failure::failed(error.to_string()))?;
        world.set(&format!("order/{}", self.orders), &text).map_err(peer)?;
        self.orders += 1;
        Ok(())
    }

    /// Waits for the leader's next order, as long as the leader lives.
    pub fn next(&mut self) -> Result<Order> {
        let Some(world) = &self.world else { return Ok(Order::End) };
        let text = world.wait(&format!("order/{}", self.orders), 0).map_err(peer)?;
        self.orders += 1;
        serde_json::from_str(&text).map_err(|error| Failure::failed(format!("an order of rank 0: {error}")))
    }

    /// Tells the leader whether this process's share of a stage is done, or was stopped.
    pub fn report(&self, done: bool) -> Result<()> {
        let Some(world) = &self.world else { return Ok(()) };
        world.set(&format!("share/{}/{}", self.orders, world.rank()), &done.to_string()).map_err(peer)
    }

    /// Waits for the others' shares of a stage: whether all are done.
    pub fn shares(&self) -> Result<bool> {
        let Some(world) = &self.world else { return Ok(true) };
        let mut done = true;
        for rank in 1..world.size() {
            done &= world.wait(&format!("share/{}/{rank}", self.orders), rank).map_err(peer)? == "true";
        }
        Ok(done)
    }

    /// Leaves the team. A failure of this process is passed on to the others.
    pub fn leave(&mut self, failure: Option<&Failure>) {
        let Some(world) = self.world.clone() else { return };
        if std::mem::replace(&mut self.left, true) {
            return;
        }
        if let Some(failure) = failure.filter(|failure| !failure.is_interruption()) {
            world.fail(&failure.to_string());
        }
        let _ = world.set(&format!("bye/{}", world.rank()), "");
        let begun = Instant::now();
        let all_gone = || (0..world.size()).all(|rank| matches!(world.get(&format!("bye/{rank}")), Ok(Some(_))));
        while self.serves && begun.elapsed() < LEAVE_TIMEOUT && !all_gone() {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn peer(error: torch_ext::Error) -> Failure {
    match error.kind() {
        torch_ext::ErrorKind::Peer => launch::of_peer(Failure::failed(error.to_string())),
        _ => Failure::from(error),
    }
}
