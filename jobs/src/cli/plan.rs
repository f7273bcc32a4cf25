//! `plan`: the stages resolved; which are done, stale or to do, and why; what they cost.
use serde_json::{Value, json};

use crate::cli::arguments::{MachineArg, NetworkArg, PlanArgs};
use crate::cluster;
use crate::common::digests::Digests;
use crate::common::failure::{Failure, Result};
use crate::common::progress::{self, bytes, metric};
use crate::common::table;
use crate::launch::device;
use crate::plan::cost::Cost;
use crate::plan::scaling::{self, Link, Machine};
use crate::plan::state::RunState;
use crate::plan::{Plan, Planned};
use crate::recipe::paths::run_folder;
use crate::recipe::{self, Device, Resolved, Resources, Stage};
use crate::run::{self, RunArgs};

pub fn run(args: &PlanArgs, json: bool) -> Result<()> {
    let (machines, pieces) = (machines(args), args.pieces);
    let args = &args.run;
    let path = args.recipe.as_deref().ok_or_else(|| Failure::usage("no recipe is given"))?;
    let resolved = recipe::load(path, &args.set)?;
    let (plan, state) = show_plan(args, resolved, json)?;
    if let Some((machine, nodes, gpus_per_node)) = machines {
        scale(&plan, machine, nodes, gpus_per_node, pieces, json);
    }
    plan.check_weights(&state)
}

/// Shows what a run would do, and gives the plan with the state that it follows from.
pub fn show_plan(args: &RunArgs, resolved: Resolved, json: bool) -> Result<(Plan, RunState)> {
    let folder = run_folder(&resolved.recipe.name);
    let state = RunState::read(&folder)?;
    let native = device::native_or_unknown(resolved.recipe.device);
    let plan = run::plan_run(args, resolved, &state, native, &mut Digests::open(&folder))?;
    show(&plan, json);
    Ok((plan, state))
}

/// The machines to predict for, if any are asked for.
fn machines(args: &PlanArgs) -> Option<(Machine, u64, u64)> {
    if args.nodes.is_none() && args.gpus_per_node.is_none() {
        return None;
    }
    let machine = match args.machine {
        MachineArg::A100 => Machine::A100,
        MachineArg::H100 => Machine::H100,
        MachineArg::Cpu => Machine::CPU,
    };
    let machine = if args.network == NetworkArg::Ethernet { machine.with_ethernet() } else { machine };
    let usual = if args.machine == MachineArg::Cpu { 1 } else { 8 };
    Some((machine, args.nodes.map_or(1, u64::from), args.gpus_per_node.map_or(usual, u64::from)))
}

/// Prints what the selected training stages would take on up to so many machines.
fn scale(plan: &Plan, machine: Machine, nodes: u64, gpus_per_node: u64, pieces: Option<u64>, json: bool) {
    let link = |link: Link| format!("{} {}/s × {:.0} %", link.name, bytes(link.peak as u64), link.utilisation * 100.0);
    eprintln!(
        "\non {}: {}FLOP/s × {:.0} %; {}; between machines {}",
        machine.name,
        metric(machine.peak),
        machine.utilisation * 100.0,
        link(machine.inside),
        link(machine.between)
    );
    for planned in plan.stages.iter().filter(|planned| planned.selected) {
        let (Some(training), Some(architecture), Some(mut cost)) =
            (planned.stage.training(), &plan.architecture, cost(plan, planned))
        else {
            continue;
        };
        cost.pieces = cost.pieces.or(pieces);
        let scaling = scaling::predict(training, architecture, &cost, machine, nodes, gpus_per_node);
        let heading = [
            "GPUs",
            "machines",
            "step",
            "compute",
            "optimizer",
            "all-reduce",
            "of it seen",
            "efficiency",
            "patches/s",
            "hours",
        ];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        for row in &scaling.rows {
            rows.push(vec![
                row.gpus.to_string(),
                row.nodes.to_string(),
                milliseconds(row.step),
                milliseconds(row.compute),
                milliseconds(row.optimizer),
                milliseconds(row.communication),
                milliseconds(row.exposed),
                format!("{:.1} %", row.efficiency * 100.0),
                metric(row.patches_per_second),
                row.hours.map_or_else(|| "?".to_owned(), |hours| format!("{hours:.1}")),
            ]);
        }
        let fits = if scaling.fits { "" } else { ", MORE THAN IT HAS" };
        eprintln!(
            "{}: full contexts, {} a step and GPU; {} a GPU{fits}; {} of gradients",
            planned.name,
            training.batch_size(),
            bytes(scaling.memory_bytes),
            bytes(scaling.gradient_bytes)
        );
        eprint!("{}", table::render(&rows));
        if json {
            progress::output(&json!({ "stage": planned.name, "scaling": scaling }));
        }
    }
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1000.0)
}

/// Prints a plan.
fn show(plan: &Plan, json: bool) {
    eprintln!("run {}: {}", plan.recipe.name, plan.folder.display());
    if let Some(architecture) = &plan.architecture {
        eprintln!(
            "model: {} parameters, {} + {} layers of {}, {} patches",
            metric(architecture.parameter_count() as f64),
            architecture.patch_layers,
            architecture.char_layers,
            architecture.hidden_size,
            architecture.patch_length
        );
    }
    if let Some(resources) = &plan.recipe.resources {
        eprintln!("on a cluster: {resources}, for each stage that does not say otherwise");
    }
    for planned in &plan.stages {
        let cost = cost(plan, planned);
        let selected = if planned.selected { "" } else { " (not selected)" };
        eprintln!("{:<16} {}: {}{selected}", planned.name, planned.status.word(), planned.status.reason());
        for line in details(plan, planned, cost.as_ref()) {
            eprintln!("{:<16}   {line}", "");
        }
        if json {
            progress::output(&object(plan, planned, cost.as_ref()));
        }
    }
    if let Some(line) = device::time_estimate(plan) {
        eprintln!("{line}");
    }
    if let Some(line) = device::slow_format(plan) {
        eprintln!("warning: {line}");
    }
}

fn cost(plan: &Plan, planned: &Planned) -> Option<Cost> {
    let (architecture, cpu) = (plan.architecture.as_ref()?, plan.recipe.device == Device::Cpu);
    match &planned.stage {
        Stage::Dpo(dpo) => Some(Cost::of_dpo(dpo, architecture, cpu)),
        stage => Some(Cost::of(stage.training()?, architecture, cpu)),
    }
}

fn details(plan: &Plan, planned: &Planned, cost: Option<&Cost>) -> Vec<String> {
    let mut lines: Vec<String> = planned.precision.iter().cloned().collect();
    for input in &planned.inputs {
        let state = match (&input.made_by, input.present, &input.hub) {
            (Some(stage), _, _) => format!(" (written by {stage})"),
            (None, true, _) => String::new(),
            (None, false, Some(reference)) => format!(" (to be fetched: {reference})"),
            (None, false, None) => " (MISSING)".to_owned(),
        };
        lines.push(format!("{}: {}{state}", input.key, input.path.display()));
    }
    if let Some(crate::recipe::Init::Stage(stage)) = &planned.init {
        lines.push(format!("init: the weights of stage {stage}"));
    }
    if let Some(cost) = cost {
        let steps = match (cost.steps, cost.pieces) {
            (Some(steps), Some(pieces)) => format!("{steps} steps over {pieces} pieces"),
            (Some(steps), None) => format!("{steps} steps"),
            _ => "steps: known once the index is there".to_owned(),
        };
        let host = match cost.host_bytes {
            0 => String::new(),
            host => format!(", and {} of the host's memory", bytes(host)),
        };
        lines.push(format!(
            "{steps}; {} FLOP a patch; {} + {} for activations at most{host}",
            metric(cost.flops_per_patch),
            bytes(cost.state_bytes),
            bytes(cost.activation_bytes)
        ));
    }
    if planned.stage.resources().is_some() {
        lines.push(format!("on a cluster: {}", cluster::resources(&Resources::default(), plan, planned)));
    }
    if let Some(published) = planned.stage.published(plan.architecture.as_ref()) {
        lines.push(format!("weights: {}", published.display()));
    }
    lines
}

fn object(plan: &Plan, planned: &Planned, cost: Option<&Cost>) -> Value {
    let inputs: Vec<Value> = planned
        .inputs
        .iter()
        .map(|input| {
            json!({
                "key": input.key,
                "path": input.path,
                "present": input.present,
                "made_by": input.made_by,
                "hub": input.hub.as_ref().map(ToString::to_string),
                "origin": input.origin,
            })
        })
        .collect();
    let settings = serde_json::to_value(&planned.stage).ok().map(|mut stage| stage[planned.stage.kind()].take());
    json!({
        "stage": planned.name,
        "kind": planned.stage.kind(),
        "folder": plan.stage_folder(planned),
        "selected": planned.selected,
        "standing": planned.status.word(),
        "reason": planned.status.reason(),
        "settings": settings,
        "inputs": inputs,
        "reads": planned.reads,
        "precision": planned.precision,
        "fingerprint": planned.fingerprint.digest,
        "cost": cost,
        "resources": cluster::resources(&Resources::default(), plan, planned),
    })
}
