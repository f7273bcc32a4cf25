//! Jobs of a cluster: what is submitted, and, with a Slurm cluster of two nodes (`scripts/test-slurm`), that a run which
//! is killed, requeued, stopped and robbed of a node ends with the weights of an undisturbed one.
#![allow(clippy::unwrap_used, clippy::panic)]
mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::Workplace;
use serde_json::Value;

/// A recipe long enough to be disturbed.
const LONG: [&str; 14] = [
    "--set",
    "pretrain.epochs=80",
    "--set",
    "pretrain.checkpoint_every=7",
    "--set",
    "finetune.steps=150",
    "--set",
    "finetune.evaluate_every=25",
    "--set",
    "finetune.checkpoint_every=7",
    "--set",
    "generate.samples=6",
    "--set",
    "generate.max_patches=40",
];

fn submit(more: &[&str]) -> Vec<String> {
    ["submit", "tiny.yaml", "--cluster", "slurm"].iter().chain(more).map(ToString::to_string).collect()
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// The scripts of a dry run, by the names of their files.
fn scripts(workplace: &Workplace, more: &[&str]) -> Vec<(String, String)> {
    let arguments = submit(&[more, &["--dry-run", "--json"]].concat());
    let ran = workplace.good(&words(&arguments));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let name = |path: String| path.strip_prefix("runs/tiny/slurm/").unwrap().to_owned();
    ran.objects().iter().map(|object| (name(text(&object["path"])), text(&object["script"]))).collect()
}

#[test]
fn a_dry_run_prints_a_script_a_stage_and_writes_nothing() {
    let workplace = Workplace::new();
    let more = ["--nodes", "3", "--time", "10", "--partition", "long", "--account", "music", "--max-restarts", "5"];
    let scripts = scripts(&workplace, &more);
    let names: Vec<&str> = scripts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["01-preprocess.sh", "02-pretrain.sh", "03-finetune.sh", "04-generate.shares.sh", "04-generate.sh"]
    );
    for (name, text) in &scripts {
        for line in ["--time=10", "--partition=long", "--account=music", "--requeue", "--signal=B:USR1@150"] {
            assert!(text.contains(&format!("\n#SBATCH {line}\n")), "{line} is not in {name}:\n{text}");
        }
        assert!(text.starts_with("#!/usr/bin/env bash\n# Stage "), "{text}");
        assert!(text.contains("\" -gt 5 ]"), "{text}");
        let mut check = Command::new("bash");
        let mut check = check.arg("-n").stdin(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut check.stdin.take().unwrap(), text.as_bytes()).unwrap();
        assert!(check.wait().unwrap().success(), "{name}");
    }
    assert!(scripts[3].1.contains("#SBATCH --array=0-2\n"), "{}", scripts[3].1);
    assert!(scripts[3].1.contains("--shard \"$SLURM_ARRAY_TASK_ID/3\""), "{}", scripts[3].1);
    assert!(!workplace.path("runs").exists());
}

#[test]
fn kubernetes_gets_a_job_a_stage_and_a_pod_a_process() {
    let workplace = Workplace::new();
    let of = ["submit", "tiny.yaml", "--cluster", "kubernetes", "--nodes", "2", "--gpus-per-node", "4"];
    workplace.run(&[&of[..], &["--image", "i", "--volume", "v"]].concat()).fails(2, "are printed", "--dry-run");
    workplace.run(&[&of[..], &["--dry-run"]].concat()).fails(2, "needs --image and --volume", "");
    let more = ["--image", "registry/train:1", "--volume", "music", "--set", "pretrain.steps=9", "--dry-run"];
    let ran = workplace.good(&[&of[..], &more, &["--set", "pretrain.epochs=null"]].concat());
    let text = String::from_utf8_lossy(&ran.0.stdout).into_owned();
    assert!(text.starts_with("# The run tiny on Kubernetes"), "{text}");
    let documents: Vec<Value> =
        text.split("\n---\n").skip(1).map(|document| serde_saphyr::from_str(document).unwrap()).collect();
    let names = |kind: &str| -> Vec<&str> {
        let of_kind = documents.iter().filter(|document| document["kind"] == kind);
        of_kind.map(|document| document["metadata"]["name"].as_str().unwrap()).collect()
    };
    assert_eq!(names("Service"), ["tiny-02-pretrain", "tiny-03-finetune"]);
    let jobs =
        ["tiny-01-preprocess", "tiny-02-pretrain", "tiny-03-finetune", "tiny-04-generate-shares", "tiny-04-generate"];
    assert_eq!(names("Job"), jobs);
    let job = |name: &str| {
        let is = |document: &&Value| document["kind"] == "Job" && document["metadata"]["name"] == name;
        documents.iter().find(is).unwrap()["spec"].clone()
    };
    for (name, pods, suspended) in [(jobs[0], 1, false), (jobs[1], 8, true), (jobs[3], 8, true), (jobs[4], 1, true)] {
        let spec = job(name);
        assert_eq!((&spec["completions"], &spec["parallelism"]), (&pods.into(), &pods.into()), "{name}");
        assert_eq!(spec["suspend"], suspended, "{name}");
        let pod = &spec["template"]["spec"];
        assert_eq!(pod["volumes"][0]["persistentVolumeClaim"]["claimName"], "music");
        assert_eq!(pod["containers"][0]["image"], "registry/train:1");
    }
    let container = |name: &str| job(name)["template"]["spec"]["containers"][0].clone();
    let words = |name: &str| -> Vec<String> { serde_json::from_value(container(name)["command"].clone()).unwrap() };
    let sets = ["--set", "pretrain.steps=9", "--set", "pretrain.epochs=null"];
    assert_eq!(words(jobs[1]), [&["notagen-train", "tiny.yaml", "--only", "pretrain"], &sets[..]].concat());
    assert_eq!(words(jobs[3])[8..], ["--shard", "$(SHARE)/8"]);
    assert_eq!(container(jobs[1])["resources"]["limits"]["nvidia.com/gpu"], 1);
    let environment = container(jobs[1])["env"].clone();
    let value = |name: &str| {
        let of = environment.as_array().unwrap().iter().find(|variable| variable["name"] == name);
        of.unwrap()["value"].clone()
    };
    assert_eq!((value("WORLD_SIZE"), value("MASTER_ADDR")), ("8".into(), "tiny-02-pretrain-0.tiny-02-pretrain".into()));
    assert!(!workplace.path("runs/tiny/slurm").exists());
}

#[test]
fn the_command_line_goes_before_the_stage_and_the_stage_before_the_recipe() {
    let workplace = Workplace::new();
    let recipe = common::TINY.replace("device: cpu\n", "resources: {time: 1-0, partition: long, gpus_per_node: 2}\n");
    let recipe = recipe.replace(
        "  - pretrain:\n",
        "  - pretrain:\n      resources: {time: 2-0, extra: [--constraint=a100, \"--comment=two words\"]}\n",
    );
    workplace.write("tiny.yaml", &recipe);
    let has = |script: &str, line: &str| script.contains(&format!("\n#SBATCH {line}\n"));
    let all = scripts(&workplace, &["--partition", "short"]);
    let (pretrain, finetune, shares) = (&all[1].1, &all[2].1, &all[3].1);
    assert!(has(pretrain, "--time=2-0") && has(finetune, "--time=1-0"));
    assert!(has(pretrain, "'--comment=two words'"), "{pretrain}");
    assert!(has(pretrain, "--constraint=a100") && !has(finetune, "--constraint=a100"));
    assert!(has(pretrain, "--partition=short") && has(pretrain, "--signal=B:USR1@300"));
    assert!(has(shares, "--array=0-1") && has(shares, "--gpus-per-node=1"), "{shares}");
    let digest = |text: &str| {
        workplace.write("tiny.yaml", text);
        workplace.good(&["plan", "tiny.yaml", "--json"]).objects()[1]["fingerprint"].clone()
    };
    let without = common::TINY.replace("device: cpu\n", "");
    assert_eq!(digest(&recipe), digest(&without), "resources have no effect on the result");
}

#[test]
fn what_slurm_would_not_take_is_told_before() {
    let workplace = Workplace::new();
    let fails = |more: &[&str], error: &str, hint: &str| {
        let arguments = submit(more);
        workplace.run(&words(&arguments)).fails(2, error, hint);
    };
    fails(&["--time", "soon", "--dry-run"], "`soon` is not a time of Slurm's", "hours:minutes:seconds");
    fails(&["--set", "resources.extra=[oops]", "--dry-run"], "`oops` is no option of sbatch", "--cpus-per-task");
    fails(&["--account", "a\nb", "--dry-run"], "the account `a b` has a line break in it", "");
    fails(&["--partition", "a\nb", "--dry-run"], "the partition `a b` has a line break in it", "");
    fails(&["--set", "resources.node=2"], "unknown key `node`", "`nodes`");
}

#[test]
fn without_slurm_one_line_says_so() {
    let workplace = Workplace::new();
    let arguments = submit(&[]);
    let ran = workplace.command(&words(&arguments)).env("PATH", workplace.path("nothing")).output().unwrap();
    common::Ran(ran).fails(1, "sbatch is not here: this machine has no Slurm", "--dry-run");
    assert!(!workplace.path("runs").exists());
}

/// Puts a command where `path` leads.
fn pretend(workplace: &Workplace, command: &str, does: &str) {
    let file = format!("bin/{command}");
    workplace.write(&file, &format!("#!/bin/sh\n{does}\n"));
    fs::set_permissions(workplace.path(&file), fs::Permissions::from_mode(0o755)).unwrap();
}

fn path(workplace: &Workplace) -> String {
    format!("{}:{}", workplace.path("bin").display(), std::env::var("PATH").unwrap())
}

#[test]
fn a_slurm_that_does_not_answer_leaves_nothing_behind() {
    let workplace = Workplace::new();
    pretend(&workplace, "sbatch", "echo slurm 1");
    pretend(&workplace, "sinfo", "echo 'sinfo: error: Unable to contact slurm controller' >&2; exit 1");
    let arguments = submit(&[]);
    let ran = workplace.command(&words(&arguments)).env("PATH", path(&workplace)).output().unwrap();
    common::Ran(ran).fails(1, "sinfo: Unable to contact slurm controller", "is this a submit host?");
    assert!(!workplace.path("runs").exists());
}

#[test]
fn a_dry_run_of_what_cannot_run_prints_no_script() {
    let workplace = Workplace::new();
    let arguments = submit(&["--from", "finetune", "--dry-run"]);
    let ran = workplace.run(&words(&arguments));
    ran.fails(1, "starts from the weights of stage pretrain, which is not done", "--from pretrain");
    assert!(ran.0.stdout.is_empty());
}

#[test]
fn a_script_runs_outside_slurm_too() {
    let workplace = Workplace::new();
    // A Slurm that takes every job and runs none.
    pretend(&workplace, "sbatch", "echo $$");
    pretend(&workplace, "sinfo", "echo debug");
    let arguments = submit(&["--nodes", "2", "--set", "pretrain.epochs=1"]);
    let ran = workplace.command(&words(&arguments)).env("PATH", path(&workplace)).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let mut bash = Command::new("bash");
    let bash = bash.arg(workplace.path("runs/tiny/slurm/02-pretrain.sh")).env("SLURM_RESTART_COUNT", "21");
    let ran = bash.output().unwrap();
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(
        ran.status.code() == Some(1) && told.contains("stage pretrain: restarted 20 times, and given up"),
        "{told}"
    );
    for script in ["01-preprocess.sh", "02-pretrain.sh", "03-finetune.sh", "04-generate.shares.sh"] {
        let mut bash = Command::new("bash");
        let bash = bash.arg(workplace.path(&format!("runs/tiny/slurm/{script}"))).env("OMP_NUM_THREADS", "1");
        let ran = bash.env_remove("SLURM_JOB_ID").output().unwrap();
        assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
    }
    assert_eq!(workplace.json("runs/tiny/state.json")["stages"]["generate"]["status"], "done");
}

#[test]
fn shares_side_by_side_write_the_pieces_of_one_run_and_the_run_records_them() {
    let workplace = Workplace::new();
    let sets = ["--set", "pretrain.epochs=1", "--set", "generate.samples=5"];
    let with = |more: &[&'static str]| [&["tiny.yaml"], &sets[..], more].concat();
    workplace.good(&with(&[]));
    let pieces = || -> Vec<String> {
        (1..=5).map(|n| workplace.read(&format!("runs/tiny/04-generate/original/{n:05}.abc"))).collect()
    };
    let (whole, summary) = (pieces(), workplace.json("runs/tiny/04-generate/summary.json"));
    workplace.run(&with(&["--only", "pretrain", "--shard", "0/2"])).fails(
        2,
        "does not work piece by piece",
        "generate",
    );
    workplace.run(&with(&["--shard", "0/2"])).fails(2, "--only", "");

    // Other settings make what is there stale; the shares start at once, and only one of them moves it aside.
    let seed = ["--set", "generate.seed=9"];
    let shares: Vec<_> = ["0/3", "1/3", "2/3"]
        .iter()
        .map(|share| {
            let more = [&with(&["--only", "generate", "--shard"]), &seed[..], &[]].concat();
            let at = more.iter().position(|word| *word == "--shard").unwrap();
            let more = [&more[..=at], &[share], &more[at + 1..]].concat();
            workplace.command(&more).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut share in shares {
        assert!(share.wait().unwrap().success());
    }
    assert_ne!(pieces(), whole);
    assert_eq!(workplace.json("runs/tiny/state.json")["stages"]["generate"]["status"], "running");
    workplace.good(&[&with(&[]), &seed[..]].concat());
    let (shared, counted) = (pieces(), workplace.json("runs/tiny/04-generate/summary.json"));
    assert_eq!(workplace.json("runs/tiny/state.json")["stages"]["generate"]["status"], "done");

    workplace.good(&[&with(&["--only", "generate", "--fresh"]), &seed[..]].concat());
    assert_eq!(shared, pieces(), "as one run writes them");
    let alone = workplace.json("runs/tiny/04-generate/summary.json");
    for key in ["pieces", "failed", "patches"] {
        assert_eq!(counted[key], alone[key], "{key}");
    }
    assert_eq!(summary["pieces"], 5);
    assert!(workplace.path("runs/tiny/04-generate.old-1").exists());
    assert!(!workplace.path("runs/tiny/04-generate.old-2").exists());
}

// From here on with a real cluster.

fn slurm(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output().unwrap();
    assert!(output.status.success(), "{command} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Waits for something to be so.
fn until(what: &str, workplace: &Workplace, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > Duration::from_secs(300) {
            let status = workplace.run(&["status", "tiny"]).stderr();
            panic!("not so after 5 minutes: {what}\n{status}\n{}", logs(workplace));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn logs(workplace: &Workplace) -> String {
    let entries = fs::read_dir(workplace.path("runs/tiny/slurm")).unwrap().flatten().map(|entry| entry.path());
    let logs: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|kind| kind == "log")).collect();
    logs.iter().map(|path| format!("== {}\n{}", path.display(), fs::read_to_string(path).unwrap())).collect()
}

fn jobs(workplace: &Workplace, stage: &str) -> Vec<String> {
    let record = workplace.json("runs/tiny/slurm/jobs.json");
    record["stages"][stage]["jobs"].as_array().unwrap().iter().map(|job| job.as_str().unwrap().to_owned()).collect()
}

fn state(job: &str) -> String {
    slurm("squeue", &["--noheader", "--states=all", "--format=%T", "--jobs", job])
}

/// How often Slurm has queued a job again.
fn restarts(job: &str) -> u32 {
    let text = slurm("squeue", &["--noheader", "--states=all", "--Format=RestartCnt", "--jobs", job]);
    text.parse().unwrap_or_else(|_| panic!("job {job}: `{text}` restarts"))
}

fn steps(workplace: &Workplace, stage: &str) -> usize {
    fs::read_to_string(workplace.path(&format!("runs/tiny/{stage}/metrics.jsonl"))).unwrap_or_default().lines().count()
}

/// The processes of this workplace that work on a stage.
fn workers(workplace: &Workplace, stage: &str) -> Vec<String> {
    let place = workplace.path("").canonicalize().unwrap();
    let is_one = |process: &PathBuf| {
        let read = |file: &str| fs::read(process.join(file)).unwrap_or_default();
        let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        read("comm").starts_with(b"notagen-train")
            && line.contains(&format!("--only {stage}"))
            && fs::read_link(process.join("cwd")).is_ok_and(|folder| folder == place)
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).filter(is_one);
    processes.map(|process| process.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

/// Kills a process that works on a stage, if there is one.
fn kill_one(workplace: &Workplace, stage: &str) -> bool {
    let worker = workers(workplace, stage).pop();
    worker.is_some_and(|worker| Command::new("kill").args(["-9", &worker]).status().unwrap().success())
}

/// Waits until a stage has got on by some lines of its metrics, in a running job.
fn gets_on(workplace: &Workplace, stage: &str, folder: &str) {
    let job = jobs(workplace, stage).pop().unwrap();
    until(&format!("{stage} runs"), workplace, || state(&job) == "RUNNING" && !workers(workplace, stage).is_empty());
    let before = steps(workplace, folder);
    until(&format!("{stage} gets on"), workplace, || steps(workplace, folder) > before + 8);
}

/// Weights and optimizer at the best evaluation of both stages, the last weights, and the pieces.
fn results(workplace: &Workplace) -> Vec<Vec<u8>> {
    let mut results = Vec::new();
    for stage in ["02-pretrain", "03-finetune"] {
        let checkpoints = workplace.path(&format!("runs/tiny/{stage}/checkpoints"));
        results.push(fs::read(checkpoints.join("best.pth")).unwrap());
        let entries = fs::read_dir(&checkpoints).unwrap().map(|entry| entry.unwrap().path());
        let last = entries.filter(|path| path.to_string_lossy().contains("/step_")).max().unwrap();
        let output = workplace.path("last.pth").display().to_string();
        workplace.good(&["weights", "export", &last.display().to_string(), "--output", &output]);
        results.push(fs::read(&output).unwrap());
    }
    for piece in 1..=6 {
        results.push(fs::read(workplace.path(&format!("runs/tiny/04-generate/original/{piece:05}.abc"))).unwrap());
    }
    results
}

#[test]
#[ignore = "needs a Slurm cluster of two nodes: scripts/test-slurm"]
fn on_two_nodes_killed_requeued_stopped_and_robbed_of_a_node_a_run_ends_in_the_same_weights() {
    let place = Workplace::new();
    // Pretraining on both nodes; fine-tuning on one, so that the other can take over.
    let sets = [&["--set", "resources.nodes=2", "--set", "finetune.resources.nodes=1"], &LONG[..]].concat();
    let ranks = if scripts(&place, &sets)[1].1.contains("\n#SBATCH --nodes=2\n") { "2" } else { "1" };
    let whole = Workplace::new();
    let mut undisturbed = [&["--until", "pretrain", "--nproc", ranks][..], &[]].map(|more| {
        let arguments = [&["tiny.yaml"], &LONG[..], more].concat();
        whole.command(&arguments)
    });
    let undisturbed = thread::spawn(move || undisturbed.iter_mut().all(|run| run.output().unwrap().status.success()));
    let arguments = submit(&sets);
    let submitting = words(&arguments);
    place.good(&submitting);
    let record = place.json("runs/tiny/slurm/jobs.json");
    let job = jobs(&place, "pretrain").pop().unwrap();

    gets_on(&place, "pretrain", "02-pretrain");
    let status = place.good(&["status", "tiny"]).stderr();
    assert!(status.contains(&format!("job {job} RUNNING on n")), "{status}");
    assert!(status.contains("PENDING (Dependency)"), "{status}");
    until("a process is killed", &place, || kill_one(&place, "pretrain"));
    until("the killed job goes on in another", &place, || {
        logs(&place).contains("ended with 137, goes on in another job")
    });

    gets_on(&place, "pretrain", "02-pretrain");
    let before = restarts(&job);
    slurm("scontrol", &["requeue", &job]);
    until("Slurm queues the job again", &place, || restarts(&job) > before);

    gets_on(&place, "pretrain", "02-pretrain");
    let again = place.good(&submitting).stderr();
    assert!(again.contains(&format!("pretrain: submitted already, job {job} RUNNING")), "{again}");
    assert_eq!(place.json("runs/tiny/slurm/jobs.json"), record, "nothing is submitted twice");
    slurm("scancel", &["--batch", "--signal=USR1", &job]);
    until("time is up", &place, || logs(&place).contains("ended with 75, goes on in another job"));

    gets_on(&place, "finetune", "03-finetune");
    let job = jobs(&place, "finetune").pop().unwrap();
    let node = slurm("squeue", &["--noheader", "--format=%N", "--jobs", &job]);
    let before = restarts(&job);
    slurm("scontrol", &["update", &format!("nodename={node}"), "state=down", "reason=test"]);
    until("the job leaves the node", &place, || restarts(&job) > before);
    gets_on(&place, "finetune", "03-finetune");
    let other = slurm("squeue", &["--noheader", "--format=%N", "--jobs", &job]);
    assert_ne!(node, other, "it goes on on the other node");
    slurm("scontrol", &["update", &format!("nodename={node}"), "state=resume"]);

    until("a share is killed", &place, || kill_one(&place, "generate"));
    until("its share goes on in another", &place, || logs(&place).contains("stage generate: ended with 137"));
    until("the run is done", &place, || {
        place.json("runs/tiny/state.json")["stages"]["generate"]["status"] == "done"
            && state(&jobs(&place, "generate").pop().unwrap()) == "COMPLETED"
    });
    assert!(undisturbed.join().unwrap(), "the undisturbed run fails");
    for (number, (one, other)) in results(&whole).iter().zip(&results(&place)).enumerate() {
        assert!(one == other, "result {number} differs");
    }
    let done = place.good(&submitting).stderr();
    assert!(done.contains("all is done, nothing is submitted"), "{done}");
}

#[test]
#[ignore = "needs a Slurm cluster of two nodes: scripts/test-slurm"]
fn jobs_behind_a_failed_one_are_cancelled_and_submitting_again_submits_what_is_missing() {
    let place = Workplace::new();
    let arguments = submit(&["--partition", "nope"]);
    place.run(&words(&arguments)).fails(
        1,
        "stage preprocess: sbatch: invalid partition specified: nope",
        "partitions: debug",
    );

    let arguments = submit(&["--set", "finetune.resources.partition=nope"]);
    let ran = place.run(&words(&arguments));
    ran.fails(1, "stage finetune: sbatch: invalid partition specified: nope", "partitions: debug");
    until("what was submitted before is cancelled", &place, || state(&jobs(&place, "pretrain")[0]) == "CANCELLED");

    // They are held until nothing depends on how fast they run.
    let arguments = submit(&["--set", "finetune.pieces=none_*", "--set", "resources.extra=[--hold]"]);
    place.good(&words(&arguments));
    let before = place.json("runs/tiny/slurm/jobs.json");
    let arguments = submit(&[]);
    place.run(&words(&arguments)).fails(1, "stage finetune is submitted with other settings, as job", "cancel tiny");
    for stage in ["preprocess", "pretrain", "finetune", "generate"] {
        slurm("scontrol", &["release", &jobs(&place, stage)[0]]);
    }
    let generate = jobs(&place, "generate").pop().unwrap();
    until("Slurm cancels what waits for a failed job", &place, || state(&generate) == "CANCELLED");
    let status = place.good(&["status", "tiny"]).stderr();
    assert!(status.contains("finetune         failed: ") && status.contains("FAILED (NonZeroExitCode)"), "{status}");

    let again = place.good(&words(&arguments)).stderr();
    let after = place.json("runs/tiny/slurm/jobs.json");
    for (stage, same) in [("preprocess", true), ("pretrain", true), ("finetune", false), ("generate", false)] {
        assert_eq!(before["stages"][stage] == after["stages"][stage], same, "{stage}\n{again}");
    }
    let cancelled = place.good(&["cancel", "tiny"]).stderr();
    let live = |stage: &str| !["CANCELLED", "COMPLETED"].contains(&state(&jobs(&place, stage)[0]).as_str());
    assert!(cancelled.contains("cancelled") || !live("generate"), "{cancelled}");
    until("nothing is left", &place, || !live("finetune") && !live("generate"));
    let text = place.good(&["cancel", "tiny"]).stderr();
    assert!(text.contains("none of its jobs is in the queue"), "{text}");
}
