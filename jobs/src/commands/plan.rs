//! `plan`: the stages resolved; which are done, stale or to do, and why; what they cost.
use serde_json::{Value, json};

use crate::{
    cli::RunArgs,
    cost::Cost,
    failure::{Failure, Result},
    fingerprint::Digests,
    plan::{self, Plan, Planned, Standing},
    progress::{self, bytes, metric},
    runner,
    state::State,
};

pub fn run(args: &RunArgs, json: bool) -> Result<()> {
    let path = args.recipe.as_deref().ok_or_else(|| Failure::usage("no recipe is given"))?;
    let resolved = runner::load(path, &args.set)?;
    let folder = plan::run_folder(&resolved.recipe.name);
    let mut digests = Digests::open(&folder.join("digests.json"));
    let state = State::read(&folder)?;
    let plan = Plan::new(resolved, &args.selection(), &state, &mut digests)?;
    show(&plan, json);
    plan.check_weights(&state)
}

/// Prints a plan.
pub fn show(plan: &Plan, json: bool) {
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
    for planned in &plan.stages {
        let cost = cost(plan, planned);
        let selected = if planned.selected { "" } else { " (not selected)" };
        eprintln!("{:<16} {}: {}{selected}", planned.name, planned.standing.word(), planned.standing.reason());
        for line in details(plan, planned, cost.as_ref()) {
            eprintln!("{:<16}   {line}", "");
        }
        if json {
            progress::output(&object(plan, planned, cost.as_ref()));
        }
    }
}

fn cost(plan: &Plan, planned: &Planned) -> Option<Cost> {
    Some(Cost::of(planned.stage.training()?, plan.architecture.as_ref()?))
}

fn details(plan: &Plan, planned: &Planned, cost: Option<&Cost>) -> Vec<String> {
    let mut lines = Vec::new();
    for input in &planned.inputs {
        let state = match (&input.made_by, input.present) {
            (Some(stage), _) => format!(" (written by {stage})"),
            (None, true) => String::new(),
            (None, false) => " (MISSING)".to_owned(),
        };
        lines.push(format!("{}: {}{state}", input.key, input.path.display()));
    }
    if let Some(crate::resolve::Init::Stage(stage)) = &planned.init {
        lines.push(format!("init: the weights of stage {stage}"));
    }
    if let Some(cost) = cost {
        let steps = match (cost.steps, cost.pieces) {
            (Some(steps), Some(pieces)) => format!("{steps} steps over {pieces} pieces"),
            (Some(steps), None) => format!("{steps} steps"),
            _ => "steps: known once the index is there".to_owned(),
        };
        lines.push(format!(
            "{steps}; {} FLOP a patch; about {} + {} for activations",
            metric(cost.flops_per_patch),
            bytes(cost.state_bytes),
            bytes(cost.activation_bytes)
        ));
    }
    if planned.standing != Standing::Unavailable
        && let Some(published) = plan.published(planned)
    {
        lines.push(format!("weights: {}", published.display()));
    }
    lines
}

fn object(plan: &Plan, planned: &Planned, cost: Option<&Cost>) -> Value {
    let inputs: Vec<Value> = planned
        .inputs
        .iter()
        .map(|input| {
            json!({ "key": input.key, "path": input.path, "present": input.present, "made_by": input.made_by, "origin": input.origin })
        })
        .collect();
    let settings = serde_json::to_value(&planned.stage).ok().map(|mut stage| stage[planned.stage.kind()].take());
    json!({
        "stage": planned.name,
        "kind": planned.stage.kind(),
        "folder": plan.stage_folder(planned),
        "selected": planned.selected,
        "standing": planned.standing.word(),
        "reason": planned.standing.reason(),
        "settings": settings,
        "inputs": inputs,
        "reads": planned.reads,
        "fingerprint": planned.fingerprint.digest,
        "cost": cost,
    })
}
