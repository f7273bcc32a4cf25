//! `--cluster kubernetes`: a recipe as indexed Jobs for kubectl, one a stage and one more for a stage in shares, with a pod
//! for each process.
use serde_json::{Value, json};

use crate::cluster::arguments::SubmitArgs;
use crate::cluster::shape::{JobShape, resources, shapes};
use crate::common::failure::{Failure, Result};
use crate::common::progress;
use crate::plan::{Plan, Planned};

/// Where a pod has the volume.
const FOLDER: &str = "/workspace";
/// Each pod has ports of its own.
const PORT: u16 = 29500;
/// Seconds that a pod gets to save.
const SAVING: u64 = 300;

/// Prints the Jobs of the stages that are not done.
///
/// # Errors
/// Without `--dry-run`: they are printed only. What the options leave out.
pub fn show(plan: &Plan, args: &SubmitArgs, json: bool) -> Result<()> {
    if !args.dry_run {
        return Err(Failure::usage("--cluster kubernetes: the jobs are printed, not submitted")
            .hint("add --dry-run, write what it prints to a file, and kubectl apply -f it"));
    }
    let (Some(image), Some(volume)) = (&args.image, &args.volume) else {
        return Err(Failure::usage("--cluster kubernetes needs --image and --volume"));
    };
    let mut jobs = Vec::new();
    for planned in plan.stages.iter().filter(|planned| planned.is_to_run()) {
        for shape in shapes(plan, planned, &resources(&args.resources, plan, planned)) {
            jobs.push(KubernetesJob { plan, planned, shape, args, image, volume, first: jobs.is_empty() });
        }
    }
    if !json {
        let names: Vec<String> = jobs.iter().map(KubernetesJob::name).collect();
        progress::result(heading(&plan.recipe.name, volume, &names).trim_end());
    }
    for document in jobs.iter().flat_map(KubernetesJob::documents) {
        if json {
            progress::output(&document);
        } else {
            let text = serde_saphyr::to_string(&document).map_err(|error| Failure::failed(error.to_string()))?;
            progress::result(&format!("---\n{}", text.trim_end()));
        }
    }
    Ok(())
}

fn heading(run: &str, volume: &str, names: &[String]) -> String {
    let (first, rest) = names.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    format!(
        r#"# The run {run} on Kubernetes 1.26 or newer, by notagen-train: a Job a stage, a pod a process. The claim {volume} is a
# volume that all nodes can write to at once; the recipe, data/, checkpoints/ and runs/ lie in its root. The image has
# notagen-train on its PATH, with the libtorch that it was built with.
#     kubectl apply -f THIS_FILE
# The first Job starts at once. The others are suspended; this starts each when the one before it is complete:
#     before={first}
#     for job in {rest}; do
#         kubectl wait --for=condition=complete --timeout=-1s "job/$before" || break
#         kubectl patch "job/$job" --type=merge --patch '{{"spec":{{"suspend":false}}}}'
#         before=$job
#     done
# A pod that is evicted saves, and another goes on from the last checkpoint. kubectl delete -f THIS_FILE ends all.
"#,
        rest = rest.join(" "),
    )
}

struct KubernetesJob<'a> {
    plan: &'a Plan,
    planned: &'a Planned,
    shape: JobShape,
    args: &'a SubmitArgs,
    image: &'a str,
    volume: &'a str,
    first: bool,
}

impl KubernetesJob<'_> {
    fn name(&self) -> String {
        let share = if matches!(self.shape, JobShape::Shards { .. }) { "-shares" } else { "" };
        name(&format!("{}-{}{share}", self.plan.recipe.name, self.planned.folder))
    }

    /// Pods, and GPUs of each.
    fn pods(&self) -> (u64, u64) {
        match self.shape {
            JobShape::Whole { nodes, tasks_per_node, gpus_per_node } => (nodes * tasks_per_node, gpus_per_node.min(1)),
            JobShape::Shards { count, gpus } => (count, gpus),
        }
    }

    /// The Job, and before it a Service by which its processes find the first one.
    fn documents(&self) -> Vec<Value> {
        let name = self.name();
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": name },
            "spec": { "clusterIP": "None", "publishNotReadyAddresses": true, "selector": { "job-name": name } },
        });
        let meet = self.processes() > 1;
        meet.then_some(service).into_iter().chain([self.job(&name)]).collect()
    }

    /// Processes that work together.
    fn processes(&self) -> u64 {
        if matches!(self.shape, JobShape::Whole { .. }) { self.pods().0 } else { 1 }
    }

    fn job(&self, name: &str) -> Value {
        let (pods, gpus) = self.pods();
        let mut container = json!({
            "name": "notagen-train",
            "image": self.image,
            "workingDir": FOLDER,
            "command": self.command(),
            "env": self.environment(name),
            "volumeMounts": [
                { "name": "workspace", "mountPath": FOLDER },
                // NCCL's shared memory is larger than what pods get.
                { "name": "memory", "mountPath": "/dev/shm" },
            ],
        });
        if gpus > 0 {
            container["resources"] = json!({ "limits": { "nvidia.com/gpu": gpus } });
        }
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": { "name": name, "labels": { "notagen-train": self::name(&self.plan.recipe.name) } },
            "spec": {
                "suspend": !self.first,
                "completionMode": "Indexed",
                "completions": pods,
                "parallelism": pods,
                // When one process fails all do.
                "backoffLimit": self.args.max_restarts * pods,
                "podFailurePolicy": { "rules": [
                    // A wrong recipe stays wrong; one that has saved, as it was told to, does not count.
                    { "action": "FailJob", "onExitCodes": { "operator": "In", "values": [2] } },
                    { "action": "Ignore", "onExitCodes": { "operator": "In", "values": [75] } },
                ] },
                "template": { "spec": {
                    "restartPolicy": "Never",
                    "subdomain": name,
                    "terminationGracePeriodSeconds": SAVING,
                    "containers": [container],
                    "volumes": [
                        { "name": "workspace", "persistentVolumeClaim": { "claimName": self.volume } },
                        { "name": "memory", "emptyDir": { "medium": "Memory" } },
                    ],
                } },
            },
        })
    }

    fn command(&self) -> Vec<String> {
        let mut words = vec!["notagen-train".to_owned(), self.args.recipe.display().to_string(), "--only".to_owned()];
        words.push(self.planned.name.clone());
        for set in &self.args.set {
            words.extend(["--set".to_owned(), set.clone()]);
        }
        if let JobShape::Shards { count, .. } = self.shape {
            words.extend(["--shard".to_owned(), format!("$(SHARE)/{count}")]);
        }
        words
    }

    /// A process's place among the others, as torchrun would set it, or the number of its share.
    fn environment(&self, name: &str) -> Vec<Value> {
        let index = "metadata.annotations['batch.kubernetes.io/job-completion-index']";
        let index = |name: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": index } } });
        let set = |name: &str, value: String| json!({ "name": name, "value": value });
        if let JobShape::Shards { .. } = self.shape {
            return vec![index("SHARE")];
        }
        if self.processes() == 1 {
            return Vec::new();
        }
        vec![
            index("RANK"),
            set("WORLD_SIZE", self.processes().to_string()),
            set("LOCAL_RANK", "0".to_owned()),
            set("MASTER_ADDR", format!("{name}-0.{name}")),
            set("MASTER_PORT", PORT.to_string()),
        ]
    }
}

/// A name as Kubernetes takes them: small letters, digits and dashes, a letter first, with room for a pod's number.
fn name(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let plain: String = text.chars().map(plain).collect();
    let end = &plain[plain.len().saturating_sub(54)..];
    let end = end.trim_matches('-');
    if end.starts_with(|c: char| c.is_ascii_lowercase()) { end.to_owned() } else { format!("n-{end}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_kubernetes_takes() {
        assert_eq!(name("Schubert_2-04-rl.1.dpo"), "schubert-2-04-rl-1-dpo");
        assert_eq!(name("2x-01-pretrain"), "n-2x-01-pretrain");
        assert!(name(&"x".repeat(90)).len() < 57);
    }
}
