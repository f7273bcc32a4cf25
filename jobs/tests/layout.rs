//! Dependencies between the files of a crate, read from their source: none goes in a circle, and those between the
//! folders of `jobs` go one way.
#![allow(clippy::unwrap_used)] // helpers of tests are tests
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

/// The folders of `jobs`, each with those that it may use.
const ARROWS: [(&str, &[&str]); 10] = [
    ("common", &[]),
    ("hub", &["common"]),
    ("recipe", &["common", "hub"]),
    ("plan", &["common", "hub", "recipe"]),
    ("launch", &["common", "plan", "recipe"]),
    ("stages", &["common", "launch", "plan", "recipe"]),
    ("run", &["common", "hub", "launch", "plan", "recipe", "stages"]),
    ("report", &["common", "plan", "recipe", "run"]),
    ("cluster", &["common", "plan", "recipe", "run"]),
    ("cli", &["cluster", "common", "hub", "launch", "plan", "recipe", "report", "run", "stages"]),
];

/// Circles that are still to be broken, by crate. A new one fails, and one that is gone has to be taken out here.
const KNOWN: [(&str, &[&[&str]]); 5] =
    [("model", &[]), ("trainer", &[]), ("notation", &[]), ("demo", &[]), ("torch-ext", &[])];

type Module = Vec<String>;

/// The code of a crate by module: no comments, no unit tests.
fn modules(folder: &Path) -> BTreeMap<Module, String> {
    fn walk(folder: &Path, module: &Module, found: &mut BTreeMap<Module, String>) {
        let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let own = |stem: String| module.iter().cloned().chain([stem]).collect::<Module>();
            if path.is_dir() {
                walk(&path, &own(stem), found);
            } else if path.extension().is_some_and(|end| end == "rs") && !matches!(stem.as_str(), "tests") {
                let text = fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                let code = text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n");
                let module = if matches!(stem.as_str(), "mod" | "lib" | "main") { module.clone() } else { own(stem) };
                found.entry(module).or_default().push_str(&code);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&folder.join("src"), &Vec::new(), &mut found);
    found
}

/// `a::{b, c::d}` as the paths `a::b` and `a::c::d`, without `as` and `self`.
fn flat(tree: &str, before: &[String], paths: &mut Vec<Module>) {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap().split("::").map(|part| part.trim().to_owned());
        return paths.push(before.iter().cloned().chain(path.filter(|part| part != "self")).collect());
    };
    let head = head.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty());
    let before: Module = before.iter().cloned().chain(head).collect();
    let (mut depth, mut from) = (0, 0);
    let inner = &rest[..rest.rfind('}').unwrap()];
    for (at, character) in inner.char_indices().chain([(inner.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[from..at].trim().is_empty() {
                    flat(&inner[from..at], &before, paths);
                }
                from = at + 1;
            }
            _ => {}
        }
    }
}

/// The `use` statements of some code: whether public, and where the paths are.
fn statements(code: &str) -> Vec<(bool, Range<usize>)> {
    let starts = code.match_indices("use ").filter_map(|(at, _)| {
        let line = code[..at].rsplit('\n').next().unwrap().trim();
        let length = code[at..].find(';')?;
        matches!(line, "" | "pub" | "pub(crate)" | "pub(super)").then(|| (!line.is_empty(), at + 4..at + length))
    });
    starts.collect()
}

fn uses(code: &str) -> Vec<(bool, Module)> {
    let mut found = Vec::new();
    for (public, range) in statements(code) {
        let mut paths = Vec::new();
        flat(&code[range], &[], &mut paths);
        found.extend(paths.into_iter().map(|path| (public, path)));
    }
    found
}

/// The words `a::b::c` in code outside `use` statements that begin with one of `heads`.
fn words(code: &str, heads: &[String]) -> Vec<Module> {
    let mut body = code.to_owned();
    for (_, range) in statements(code).into_iter().rev() {
        body.replace_range(range, "");
    }
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = body.split(|c: char| !is_part(c)).filter(|word| word.contains("::"));
    let paths = words.map(|word| word.split("::").map(str::to_owned).collect::<Module>());
    paths.filter(|path| heads.contains(&path[0])).collect()
}

/// A path, seen from a module, from the root of the crate; nothing if it leads out of the crate.
fn absolute(path: &[String], from: &Module, modules: &BTreeMap<Module, String>) -> Option<Module> {
    let (head, rest) = path.split_first()?;
    let mut at = match head.as_str() {
        "crate" => Vec::new(),
        "super" => from[..from.len().checked_sub(1)?].to_vec(),
        child => {
            let own: Module = from.iter().cloned().chain([child.to_owned()]).collect();
            modules.contains_key(&own).then_some(own)?
        }
    };
    for part in rest {
        if part == "super" {
            at.pop();
        } else {
            at.push(part.clone());
        }
    }
    Some(at)
}

/// The module that a path from the root leads to; names that a module passes on lead to where they come from.
fn target(path: &[String], modules: &BTreeMap<Module, String>) -> Module {
    let depth = (0..=path.len()).rev().find(|depth| modules.contains_key(&path[..*depth])).unwrap_or(0);
    let module = path[..depth].to_vec();
    if let (Some(name), Some(code)) = (path.get(depth), modules.get(&module)) {
        for (_, passed) in uses(code).into_iter().filter(|(public, _)| *public) {
            if let Some(passed) = absolute(&passed, &module, modules)
                && passed.last() == Some(name)
                && passed != path
            {
                return target(&passed, modules);
            }
        }
    }
    module
}

/// What each module of a crate uses of the others.
fn arrows(modules: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut arrows = BTreeMap::new();
    for (module, code) in modules {
        let children = modules.keys().filter(|other| other.len() == module.len() + 1 && other.starts_with(module));
        let mut heads: Vec<String> = children.filter_map(|child| child.last().cloned()).collect();
        heads.extend(["crate".to_owned(), "super".to_owned()]);
        let private = uses(code).into_iter().filter(|(public, _)| !*public).map(|(_, path)| path);
        let to = private.chain(words(code, &heads)).filter_map(|path| absolute(&path, module, modules));
        let to: BTreeSet<Module> = to.map(|path| target(&path, modules)).filter(|to| to != module).collect();
        arrows.insert(module.clone(), to);
    }
    arrows
}

/// The groups of modules that lead to each other.
fn circles(arrows: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<BTreeSet<String>> {
    let reach = |from: &Module| {
        let (mut reached, mut open) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = open.pop() {
            open.extend(arrows[&module].iter().filter(|to| reached.insert((*to).clone())).cloned());
        }
        reached
    };
    let reached: BTreeMap<&Module, BTreeSet<Module>> = arrows.keys().map(|module| (module, reach(module))).collect();
    let circle = |module: &&Module| {
        let others = reached[*module].iter().filter(|other| reached[*other].contains(*module));
        others.map(|other| other.join("/")).collect::<BTreeSet<_>>()
    };
    reached.keys().map(circle).filter(|circle| circle.len() > 1).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[test]
fn no_files_of_jobs_depend_on_each_other_in_a_circle() {
    let arrows = arrows(&modules(&root().join("jobs")));
    assert!(arrows.len() > 60, "{} files are read", arrows.len());
    assert_eq!(circles(&arrows), BTreeSet::new());
}

#[test]
fn the_folders_of_jobs_depend_on_each_other_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let mut wrong = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for (module, used) in arrows(&modules(&root().join("jobs"))) {
        let Some(folder) = module.first() else { continue };
        seen.insert(folder.clone());
        for to in used.iter().filter(|to| to.first() != Some(folder)) {
            let to_folder = to.first().map_or("main", String::as_str);
            if !allowed.get(folder.as_str()).is_some_and(|allowed| allowed.contains(&to_folder)) {
                wrong.insert(format!("{} → {}", module.join("/"), to.join("/")));
            }
        }
    }
    assert_eq!(wrong, BTreeSet::new());
    assert_eq!(seen, ARROWS.iter().map(|(folder, _)| (*folder).to_owned()).collect());
}

#[test]
fn the_arrows_that_are_allowed_make_no_circle_themselves() {
    let folders = |names: &[&str]| names.iter().map(|name| vec![(*name).to_owned()]).collect::<BTreeSet<Module>>();
    let arrows = ARROWS.iter().map(|(folder, to)| (vec![(*folder).to_owned()], folders(to))).collect();
    assert_eq!(circles(&arrows), BTreeSet::new());
}

#[test]
fn no_other_crate_gains_a_circle() {
    for (name, known) in KNOWN {
        let known: BTreeSet<BTreeSet<String>> =
            known.iter().map(|circle| circle.iter().map(|file| (*file).to_owned()).collect()).collect();
        assert_eq!(circles(&arrows(&modules(&root().join(name)))), known, "{name}");
    }
}

#[test]
fn a_circle_is_found() {
    let code = [
        ("", "mod a;\nmod b;\nmod c;\npub use c::Kept;\n"),
        ("a", "use crate::b::{self, Thing};\n"),
        ("b", "fn of() -> crate::Kept { super::c::kept() }\n"),
        ("c", "pub struct Kept;\n"),
    ];
    let mut modules: BTreeMap<Module, String> = code
        .iter()
        .map(|(name, code)| (name.split_terminator('/').map(str::to_owned).collect(), (*code).to_owned()))
        .collect();
    assert_eq!(circles(&arrows(&modules)), BTreeSet::new());
    modules.insert(vec!["c".to_owned()], "use super::a::Thing;\npub struct Kept;\n".to_owned());
    let circle = ["a", "b", "c"].map(str::to_owned).into_iter().collect();
    assert_eq!(circles(&arrows(&modules)), BTreeSet::from([circle]));
}

#[test]
fn the_page_on_architecture_names_the_crates_and_folders_that_there_are() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let rows: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = [")).unwrap();
    let members = members.trim_end_matches(']').split(", ").map(|name| name.trim_matches('"').to_owned());
    let folders = ARROWS.iter().map(|(folder, _)| format!("jobs/src/{folder}"));
    let there: BTreeSet<String> = members.chain(folders).collect();
    assert_eq!(rows.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), there);
    // What else it points at is there.
    for path in page.split('`').skip(1).step_by(2).filter(|word| word.contains('/') && !word.contains(' ')) {
        assert!(root().join(path).exists(), "{path}");
    }
}
