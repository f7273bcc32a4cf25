//! Weights from the hub, against a server on this machine that speaks its protocol and misbehaves.
#![allow(clippy::unwrap_used, clippy::panic)]
mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use common::{
    Ran, Workplace,
    hub::{Behaviour, COMMIT, LocalHub, isolated, sha256},
    root,
};

const X: &str = "weights_notagenx_p_size_16_p_length_1024_p_layers_20_h_size_1280.pth";
const REPOSITORY: &str = "ElectricAlexis/NotaGen";
const SNAPSHOT: &str = "hf/hub/models--ElectricAlexis--NotaGen/snapshots";

/// Contents that no part is like another of.
fn contents() -> Vec<u8> {
    (0_u32..100_000).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn hub(behaviour: Behaviour) -> LocalHub {
    LocalHub::of(&format!("{REPOSITORY}/{X}"), &contents(), behaviour)
}

fn run(workplace: &Workplace, hub: &LocalHub, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    let mut command = workplace.command(arguments);
    isolated(&mut command, workplace, &hub.endpoint());
    Ran(command.envs(variables.iter().copied()).output().unwrap())
}

fn fetch(workplace: &Workplace, hub: &LocalHub) -> Ran {
    run(workplace, hub, &["weights", "fetch", "notagen-x", "--json"], &[])
}

fn blob(workplace: &Workplace, name: &str) -> PathBuf {
    workplace.path("hf/hub/models--ElectricAlexis--NotaGen/blobs").join(name)
}

/// That the file is whole, in the cache and under `checkpoints/`.
fn assert_here(workplace: &Workplace) {
    assert!(fs::read(workplace.path(&format!("checkpoints/{X}"))).unwrap() == contents());
    let left: Vec<_> = fs::read_dir(blob(workplace, "")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [sha256(&contents()).as_str()]);
}

#[test]
fn a_file_is_laid_where_the_hubs_tools_keep_theirs() {
    let (workplace, hub) = (Workplace::empty(), hub(Behaviour::default()));
    let ran = fetch(&workplace, &hub);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    assert_here(&workplace);
    let fields = &ran.objects()[0];
    assert_eq!((&fields["fetched"], &fields["bytes"]), (&true.into(), &400_000.into()));
    assert_eq!(fields["path"], format!("checkpoints/{X}"));
    let pointer = workplace.path(&format!("{SNAPSHOT}/{COMMIT}/{X}"));
    assert_eq!(fs::read_link(&pointer).unwrap(), Path::new(&format!("../../blobs/{}", sha256(&contents()))));
    assert_eq!(fs::read_link(workplace.path(&format!("checkpoints/{X}"))).unwrap(), pointer);
    assert_eq!(workplace.read("hf/hub/models--ElectricAlexis--NotaGen/refs/main"), COMMIT);
    assert_eq!(hub.requests().iter().map(|request| request.method.as_str()).collect::<Vec<_>>(), ["HEAD", "GET"]);

    let again = fetch(&workplace, &hub);
    assert_eq!((again.code(), &again.objects()[0]["fetched"]), (0, &false.into()));
    assert_eq!(hub.requests(), []);
    let listed = run(&workplace, &hub, &["weights", "fetch", "--json"], &[]).objects();
    let here = listed.iter().filter(|entry| entry["here"] == true).map(|entry| entry["name"].as_str().unwrap());
    assert_eq!(here.collect::<Vec<_>>(), ["notagen-x"]);
    let report = &run(&workplace, &hub, &["doctor", "--json"], &[]).objects()[0];
    assert_eq!(report["published"]["here"], serde_json::json!(["notagen-x"]));

    // Another workplace with the same cache asks for its state, and carries nothing.
    fs::remove_dir_all(workplace.path("checkpoints")).unwrap();
    assert_eq!(fetch(&workplace, &hub).objects()[0]["fetched"], false);
    assert_eq!(hub.requests().len(), 1);
    assert_here(&workplace);
}

#[test]
fn a_cut_connection_is_taken_up_where_it_broke() {
    let workplace = Workplace::empty();
    let hub = hub(Behaviour { cuts: vec![100_000, 50_000, 0], ..Behaviour::default() });
    let ran = fetch(&workplace, &hub);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    assert_here(&workplace);
    let ranges: Vec<_> =
        hub.requests().into_iter().filter(|request| request.method == "GET").map(|r| r.range).collect();
    let from = |byte: u32| Some(format!("bytes={byte}-"));
    assert_eq!(ranges, [None, from(100_000), from(150_000), from(150_000)]);
}

#[test]
fn what_an_earlier_process_left_is_gone_on_from() {
    let workplace = Workplace::empty();
    let hub = hub(Behaviour::default());
    let part = blob(&workplace, &format!("{}.incomplete", sha256(&contents())));
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, &contents()[..300_000]).unwrap();
    assert_eq!(fetch(&workplace, &hub).code(), 0);
    assert_here(&workplace);
    assert_eq!(hub.requests()[1].range.as_deref(), Some("bytes=300000-"));

    // What it left is of no use: once more from the beginning.
    let workplace = Workplace::empty();
    let part = blob(&workplace, &format!("{}.incomplete", sha256(&contents())));
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, vec![7; 300_000]).unwrap();
    let ran = fetch(&workplace, &hub);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    assert!(ran.stderr().contains("once more, from the beginning"), "{}", ran.stderr());
    assert_here(&workplace);
}

#[test]
fn a_server_without_ranges_and_one_that_falls_silent_are_coped_with() {
    let workplace = Workplace::empty();
    let whole = hub(Behaviour { cuts: vec![100_000], without_ranges: true, ..Behaviour::default() });
    assert_eq!(fetch(&workplace, &whole).code(), 0);
    assert_here(&workplace);

    let workplace = Workplace::empty();
    let silent = hub(Behaviour { stalls: vec![200_000], ..Behaviour::default() });
    let ran = run(&workplace, &silent, &["weights", "fetch", "notagen-x"], &[("HF_HUB_DOWNLOAD_TIMEOUT", "2")]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    assert_here(&workplace);
}

#[test]
fn a_wrong_hash_is_told_and_nothing_is_kept() {
    let workplace = Workplace::empty();
    let hub = hub(Behaviour { claims: Some("ab".repeat(32)), ..Behaviour::default() });
    let ran = fetch(&workplace, &hub);
    ran.fails(1, &format!("what arrived has the SHA-256 {}", sha256(&contents())), "fetch it again");
    assert_eq!(fs::read_dir(blob(&workplace, "")).unwrap().count(), 0);
    assert!(!workplace.path("checkpoints").exists() && !workplace.path(SNAPSHOT).exists());
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let (workplace, hub) = (Workplace::empty(), hub(Behaviour::default()));
    let fetch = |name: &str| run(&workplace, &hub, &["weights", "fetch", name], &[]);
    let near = X.replace("notagenx", "notagen_x");
    fetch(&format!("hf://{REPOSITORY}/{near}")).fails(1, "has no file", &format!("did you mean `{X}`?"));
    fetch(&format!("hf://{REPOSITORY}s/{X}")).fails(
        1,
        "there is no repository",
        &format!("did you mean `{REPOSITORY}`?"),
    );
    fetch("notagen-xl").fails(2, "no weights called `notagen-xl` are published", "did you mean `notagen-x`?");
    fetch("hf://a/b").fails(2, "`hf://a/b` is not of the form hf://owner/repo/file", "");
    hub.change(|behaviour| behaviour.refusals.push((404, "X-Error-Code: RevisionNotFound")));
    fetch(&format!("hf://{REPOSITORY}@v9/{X}")).fails(1, "has no revision `v9`", "a branch, a tag or a whole commit");
    hub.change(|behaviour| behaviour.refusals.push((307, "Location: http://")));
    fetch("notagen-x").fails(1, "does not answer as the hub does", "HF_ENDPOINT");
    assert!(!workplace.path("checkpoints").exists());
}

#[test]
fn a_token_opens_what_is_closed_and_goes_to_the_hub_alone() {
    let workplace = Workplace::empty();
    let hub = hub(Behaviour { token: Some("secret"), elsewhere: true, renamed: true, ..Behaviour::default() });
    let fetch = |variables: &[(&str, &str)]| run(&workplace, &hub, &["weights", "fetch", "notagen-x"], variables);
    fetch(&[]).fails(1, "there is no repository ElectricAlexis/NotaGen, or it is private", "HF_TOKEN");
    fetch(&[("HF_TOKEN", "wrong")]).fails(1, "access denied (HTTP 401)", "is not valid, or may not read it");
    hub.change(|behaviour| behaviour.refusals.push((403, "X-Error-Code: GatedRepo")));
    fetch(&[("HF_TOKEN", "secret")]).fails(1, "access denied (HTTP 403)", "ask for access on https://huggingface.co/");
    hub.requests();
    let ran = fetch(&[("HF_TOKEN", "secret")]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    assert_here(&workplace);
    let requests = hub.requests();
    let elsewhere: Vec<_> = requests.iter().filter(|request| request.path.starts_with("/elsewhere/")).collect();
    assert!(elsewhere.len() == 1 && elsewhere[0].host.starts_with("localhost"), "{requests:?}");
    assert!(requests.iter().all(|r| r.path.starts_with("/elsewhere/") != r.authorization.is_some()), "{requests:?}");
    assert!(!ran.stderr().contains("secret"));

    // The file of the hub's own log-in does as well.
    fs::remove_dir_all(workplace.path("hf")).unwrap();
    fs::remove_dir_all(workplace.path("checkpoints")).unwrap();
    workplace.write("hf/token", "secret\n");
    assert_eq!(fetch(&[]).code(), 0);
}

#[test]
fn a_busy_hub_is_waited_for_as_it_asks() {
    let (workplace, hub) = (Workplace::empty(), hub(Behaviour::default()));
    hub.change(|behaviour| behaviour.refusals = vec![(429, "Retry-After: 1"), (503, ""), (429, "Retry-After: 1")]);
    let begun = Instant::now();
    let ran = fetch(&workplace, &hub);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    assert!(begun.elapsed().as_secs_f64() >= 2.0, "{:?}", begun.elapsed());
    assert!(ran.stderr().contains("too many requests (HTTP 429): again in 1.0 s"), "{}", ran.stderr());
    assert_here(&workplace);

    let workplace = Workplace::empty();
    hub.change(|behaviour| behaviour.refusals = vec![(429, "Retry-After: 86400")]);
    fetch(&workplace, &hub).fails(1, "too many requests (HTTP 429)", "try again later");
}

#[test]
fn without_network_the_cache_does() {
    let (workplace, hub) = (Workplace::empty(), hub(Behaviour::default()));
    let offline = |arguments: &[&str]| run(&workplace, &hub, arguments, &[("HF_HUB_OFFLINE", "1")]);
    offline(&["weights", "fetch", "notagen-x"]).fails(
        1,
        "not in the hub's cache, and HF_HUB_OFFLINE is set",
        "put the file at",
    );
    assert_eq!(hub.requests(), []);
    assert_eq!(fetch(&workplace, &hub).code(), 0);
    hub.requests();
    fs::remove_dir_all(workplace.path("checkpoints")).unwrap();
    assert_eq!(offline(&["weights", "fetch", "notagen-x"]).code(), 0);
    assert_eq!(hub.requests(), []);
    assert_here(&workplace);

    // A port on which nobody listens.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let lonely = |workplace: &Workplace| {
        let mut command = workplace.command(&["weights", "fetch", "notagen-x"]);
        isolated(&mut command, workplace, &format!("http://{nobody}"));
        Ran(command.output().unwrap())
    };
    fs::remove_dir_all(workplace.path("checkpoints")).unwrap();
    let ran = lonely(&workplace);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    assert!(
        ran.stderr().contains("warning: ") && ran.stderr().contains("what is in the cache is taken"),
        "{}",
        ran.stderr()
    );
    lonely(&Workplace::empty()).fails(1, "cannot reach http://127.0.0.1:", "HF_ENDPOINT names a mirror");
}

#[test]
fn a_recipe_fetches_what_it_needs_and_its_plan_does_not() {
    let workplace = Workplace::new();
    workplace.good(&["tiny.yaml", "--until", "pretrain"]);
    let weights = fs::read(workplace.published("tiny-pretrain")).unwrap();
    let hub = LocalHub::of("lab/tiny/sub/start.pth", &weights, Behaviour::default());
    let recipe = workplace.read("tiny.yaml");
    let (head, _) = recipe.split_once("  - preprocess:").unwrap();
    let head = head.replace("name: tiny", "name: tuned");
    workplace.write(
        "tuned.yaml",
        &format!(
            "{head}  - finetune:\n      init: hf://lab/tiny@{COMMIT}/sub/start.pth\n      \
             train: data/augmented_train.jsonl\n      key_augmentation: none\n      steps: 1\n"
        ),
    );
    let planned = run(&workplace, &hub, &["plan", "tuned.yaml", "--json"], &[]);
    assert_eq!(planned.code(), 0, "{}", planned.stderr());
    let address = format!("hf://lab/tiny@{COMMIT}/sub/start.pth");
    assert!(planned.stderr().contains(&format!("(to be fetched: {address})")), "{}", planned.stderr());
    let inputs = planned.objects()[0]["inputs"].as_array().unwrap().clone();
    let init = inputs.iter().find(|input| input["key"] == "init").unwrap();
    assert_eq!((&init["hub"], &init["present"]), (&address.as_str().into(), &false.into()));
    assert_eq!(run(&workplace, &hub, &["validate", "tuned.yaml"], &[]).code(), 0);
    assert_eq!(run(&workplace, &hub, &["tuned.yaml", "--dry-run"], &[]).code(), 0);
    assert_eq!(hub.requests(), []);

    let ran = run(&workplace, &hub, &["tuned.yaml"], &[]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    assert!(ran.stderr().contains(&format!("fetching {address}")), "{}", ran.stderr());
    assert!(fs::read(workplace.path("checkpoints/start.pth")).unwrap() == weights);
    hub.requests();
    let again = run(&workplace, &hub, &["tuned.yaml"], &[]);
    assert!(again.stderr().contains("finetune: done"), "{}", again.stderr());
    assert_eq!(hub.requests(), []);
}

/// Python's client for the hub, where the tests' Python is.
fn python(workplace: &Workplace, endpoint: &str, code: &str) -> Option<String> {
    let packages = root().join(".tools/python");
    if !packages.join("huggingface_hub").is_dir() {
        return None;
    }
    let mut command = Command::new("python3");
    isolated(&mut command, workplace, endpoint);
    let out = command.env("PYTHONPATH", packages).env("HF_HUB_DISABLE_XET", "1").args(["-c", code]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(String::from_utf8(out.stdout).unwrap().trim().to_owned())
}

#[test]
fn pythons_client_and_this_one_find_each_others_files() {
    let (workplace, hub) = (Workplace::empty(), hub(Behaviour::default()));
    assert_eq!(fetch(&workplace, &hub).code(), 0);
    let download = |more: &str| {
        format!("from huggingface_hub import hf_hub_download as get\nprint(get('{REPOSITORY}', '{X}'{more}))")
    };
    let Some(found) = python(&workplace, &hub.endpoint(), &download(", local_files_only=True")) else { return };
    assert_eq!(Path::new(&found), workplace.path(&format!("{SNAPSHOT}/{COMMIT}/{X}")));
    hub.requests();
    python(&workplace, &hub.endpoint(), &download(""));
    // It asks for other things too, but not for the contents.
    let requests: Vec<_> = hub.requests().into_iter().filter(|request| request.path.contains(X)).collect();
    assert!(!requests.is_empty() && requests.iter().all(|request| request.method == "HEAD"), "{requests:?}");

    let workplace = Workplace::empty();
    python(&workplace, &hub.endpoint(), &download(""));
    let ran = run(&workplace, &hub, &["weights", "fetch", "notagen-x"], &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    assert_here(&workplace);
}
