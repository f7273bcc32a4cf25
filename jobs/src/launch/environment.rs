//! A process's place among the others, as torchrun, srun or a person wrote it into the environment.
use std::net::ToSocketAddrs;

use crate::common::failure::{Failure, Result};

/// A rank, and the address at which all ranks meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendezvous {
    pub rank: usize,
    pub size: usize,
    /// The rank on this machine: the number of its device.
    pub local_rank: usize,
    pub host: String,
    pub port: u16,
    /// Whether this rank serves the store that all connect to.
    pub serve: bool,
    /// Prefix of this attempt's keys in the store.
    pub prefix: String,
    /// The variables that it comes from.
    pub source: &'static str,
}

const TOGETHER: &str =
    "RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT go together: torchrun sets them, and so does --nproc";

/// The rank and the address that environment variables give, if they do.
///
/// # Errors
/// A usage failure that says which variables are missing, are no numbers or contradict each other.
pub fn find(get: impl Fn(&str) -> Option<String>) -> Result<Option<Rendezvous>> {
    let get = |name: &str| get(name).filter(|value| !value.is_empty());
    let number = |name: &str| -> Result<Option<usize>> {
        let Some(text) = get(name) else { return Ok(None) };
        let number = text.parse().map_err(|_| {
            Failure::usage(format!("{name}={text}: it is no number"))
                .hint("torchrun, srun and --nproc set it: unset it, or set it to a whole number of at least 0")
        })?;
        Ok(Some(number))
    };
    let (local_rank, local_size) = (number("LOCAL_RANK")?, number("LOCAL_WORLD_SIZE")?);
    // What is wrong is told, whether or not something comes of it.
    port(&number)?;
    let slurm = number("SLURM_STEP_NUM_TASKS")?.filter(|&tasks| tasks > 1);
    let slurm = slurm.zip(number("SLURM_PROCID")?);
    let (rank, world) = (number("RANK")?, number("WORLD_SIZE")?);
    match (rank, world, slurm) {
        (None, None, None) => {
            // A batch script may set the address for whatever it starts.
            let of_others: &[&str] = if get("SLURM_JOB_ID").is_some() { &[] } else { &["MASTER_ADDR", "MASTER_PORT"] };
            match ["LOCAL_RANK"].iter().chain(of_others).find(|name| get(name).is_some()) {
                Some(name) => Err(Failure::usage(format!("{name} is set, and RANK and WORLD_SIZE are not"))
                    .hint(format!("{TOGETHER}; to run alone, unset {name}"))),
                None => Ok(None),
            }
        }
        (None, None, Some((size, rank))) => of_slurm(rank, size, &get, &number).map(Some),
        (Some(rank), Some(size), slurm) => {
            if rank >= size {
                return Err(Failure::usage(format!("RANK={rank} and WORLD_SIZE={size}: ranks are counted from 0"))
                    .hint("unset both, and start with --nproc"));
            }
            // torchrun numbers the processes itself, and srun may have started it once a node.
            let by_torchrun = get("TORCHELASTIC_RESTART_COUNT").is_some();
            match slurm {
                Some((tasks, task)) if tasks == size && task != rank && !by_torchrun => {
                    return Err(Failure::usage(format!("RANK={rank}, but SLURM_PROCID={task}: the same rank twice"))
                        .hint("under srun leave RANK and WORLD_SIZE unset: Slurm's numbers count"));
                }
                Some((tasks, task)) if size == 1 => {
                    return Err(Failure::usage(format!(
                        "WORLD_SIZE=1, but SLURM_STEP_NUM_TASKS={tasks}: task {task} would run the whole recipe beside the others"
                    ))
                    .hint("unset RANK and WORLD_SIZE, or srun --ntasks=1"));
                }
                Some((tasks, _)) if size < tasks || size != tasks && !by_torchrun => {
                    return Err(Failure::usage(format!("WORLD_SIZE={size}, but SLURM_STEP_NUM_TASKS={tasks}"))
                        .hint("under srun leave RANK and WORLD_SIZE unset: Slurm's numbers count"));
                }
                _ => {}
            }
            let of_machine = local_size.map_or(size, |local_size| local_size.min(size));
            if let Some(local_rank) = local_rank.filter(|&local_rank| local_rank >= of_machine) {
                let name = if of_machine == size { "WORLD_SIZE" } else { "LOCAL_WORLD_SIZE" };
                return Err(Failure::usage(format!(
                    "LOCAL_RANK={local_rank} and {name}={of_machine}: ranks are counted from 0"
                ))
                .hint("unset all of them, and start with --nproc"));
            }
            if size == 1 {
                return Ok(None);
            }
            of_torchrun(rank, size, &get, &number).map(Some)
        }
        (rank, ..) => {
            let (there, missing) = if rank.is_some() { ("RANK", "WORLD_SIZE") } else { ("WORLD_SIZE", "RANK") };
            Err(Failure::usage(format!("{there} is set and {missing} is not"))
                .hint("torchrun sets both; unset them, and start with --nproc"))
        }
    }
}

fn port(number: &impl Fn(&str) -> Result<Option<usize>>) -> Result<Option<u16>> {
    let Some(port) = number("MASTER_PORT")? else { return Ok(None) };
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(Some(port)),
        _ => Err(Failure::usage(format!("MASTER_PORT={port}: it is no port"))
            .hint("a free one of rank 0's machine, the same for all: 1 to 65535")),
    }
}

fn of_torchrun(
    rank: usize,
    size: usize,
    get: &impl Fn(&str) -> Option<String>,
    number: &impl Fn(&str) -> Result<Option<usize>>,
) -> Result<Rendezvous> {
    let missing = |name: &str| Failure::usage(format!("WORLD_SIZE={size}, and {name} is not set")).hint(TOGETHER);
    let local_rank = number("LOCAL_RANK")?.map_or_else(|| number("SLURM_LOCALID"), |rank| Ok(Some(rank)))?;
    let agent = get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True");
    Ok(Rendezvous {
        rank,
        size,
        local_rank: local_rank.ok_or_else(|| missing("LOCAL_RANK"))?,
        host: get("MASTER_ADDR").ok_or_else(|| missing("MASTER_ADDR"))?,
        port: port(number)?.ok_or_else(|| missing("MASTER_PORT"))?,
        // torchrun's agent keeps a store of its own at that port.
        serve: rank == 0 && !agent,
        prefix: format!("notagen-train/{}", number("TORCHELASTIC_RESTART_COUNT")?.unwrap_or(0)),
        source: "RANK, WORLD_SIZE",
    })
}

fn of_slurm(
    rank: usize,
    size: usize,
    get: &impl Fn(&str) -> Option<String>,
    number: &impl Fn(&str) -> Result<Option<usize>>,
) -> Result<Rendezvous> {
    let (job, step) = (number("SLURM_JOB_ID")?.unwrap_or(0), number("SLURM_STEP_ID")?.unwrap_or(0));
    // Below the ports that systems give to connections.
    let port = port(number)?.unwrap_or(20_000 + ((job + step) % 12_000) as u16);
    let list = get("SLURM_STEP_NODELIST").or_else(|| get("SLURM_NODELIST"));
    if let Some(list) = list.as_ref().filter(|list| list.matches('[').count() != list.matches(']').count()) {
        return Err(Failure::usage(format!("SLURM_STEP_NODELIST={list}: it is no list of nodes"))
            .hint("srun sets it: leave it as it is"));
    }
    let first = list.map(|list| first_host(&list));
    // A node need not have its host's name; srun is started on the first node of a batch job.
    let known = first.clone().filter(|host| (host.as_str(), port).to_socket_addrs().is_ok());
    let host = get("MASTER_ADDR").or(known).or_else(|| get("SLURM_LAUNCH_NODE_IPADDR")).or(first);
    let host = host.ok_or_else(|| {
        Failure::usage("srun has started several tasks, and neither MASTER_ADDR nor SLURM_STEP_NODELIST is set")
            .hint("set MASTER_ADDR to the host of task 0")
    })?;
    if rank >= size {
        return Err(Failure::usage(format!("SLURM_PROCID={rank} and SLURM_STEP_NUM_TASKS={size}")));
    }
    let attempt = number("SLURM_RESTART_COUNT")?.unwrap_or(0);
    Ok(Rendezvous {
        rank,
        size,
        local_rank: number("SLURM_LOCALID")?.unwrap_or(0),
        host,
        port,
        serve: rank == 0,
        prefix: format!("notagen-train/{job}.{step}/{attempt}"),
        source: "SLURM_PROCID, SLURM_STEP_NUM_TASKS",
    })
}

/// The first of Slurm's lists of nodes: `gpu[03-05,9],login` is `gpu03`.
fn first_host(list: &str) -> String {
    match list.split_once('[') {
        Some((name, rest)) if !name.contains(',') => {
            let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
            format!("{name}{number}")
        }
        _ => list.split(',').next().unwrap_or(list).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn of(variables: &[(&str, &str)]) -> Result<Option<Rendezvous>> {
        let map: HashMap<&str, &str> = variables.iter().copied().collect();
        find(|name| map.get(name).map(|value| (*value).to_owned()))
    }

    const TORCHRUN: [(&str, &str); 5] =
        [("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "node0"), ("MASTER_PORT", "29500")];
    const SRUN: [(&str, &str); 6] = [
        ("SLURM_STEP_NUM_TASKS", "4"),
        ("SLURM_PROCID", "2"),
        ("SLURM_LOCALID", "0"),
        ("SLURM_STEP_NODELIST", "localhost"),
        ("SLURM_JOB_ID", "71"),
        ("SLURM_STEP_ID", "0"),
    ];

    #[test]
    fn without_others_there_is_no_place() {
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap(), None);
        // The batch script of a job with several tasks is none of them.
        assert_eq!(of(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8"), ("SLURM_JOB_ID", "5")]).unwrap(), None);
    }

    #[test]
    fn torchrun_is_honoured() {
        let place = of(&TORCHRUN).unwrap().unwrap();
        assert_eq!((place.rank, place.size, place.local_rank, place.port, place.serve), (3, 4, 1, 29500, false));
        let first = |more: &[(&str, &str)]| {
            let mut all = TORCHRUN.to_vec();
            all[0].1 = "0";
            all.extend(more);
            of(&all).unwrap().unwrap()
        };
        assert!(first(&[]).serve);
        let agent = first(&[("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RESTART_COUNT", "2")]);
        assert_eq!((agent.serve, agent.prefix.as_str()), (false, "notagen-train/2"));
    }

    #[test]
    fn srun_is_honoured() {
        let place = of(&SRUN).unwrap().unwrap();
        assert_eq!((place.rank, place.size, place.local_rank), (2, 4, 0));
        assert_eq!((place.host.as_str(), place.port), ("localhost", 20_071));
        let given =
            of(&[&SRUN[..], &[("MASTER_ADDR", "10.0.0.1"), ("MASTER_PORT", "4000")]].concat()).unwrap().unwrap();
        assert_eq!((given.host.as_str(), given.port), ("10.0.0.1", 4000));
        let mut unknown = SRUN.to_vec();
        unknown[3].1 = "no-such-host-[01-02]";
        unknown.push(("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"));
        assert_eq!(of(&unknown).unwrap().unwrap().host, "127.0.0.1");
    }

    #[test]
    fn contradictions_are_explained() {
        let error = |variables: &[(&str, &str)]| of(variables).unwrap_err().to_string();
        assert_eq!(error(&[("RANK", "0")]), "RANK is set and WORLD_SIZE is not");
        assert_eq!(error(&[("WORLD_SIZE", "2")]), "WORLD_SIZE is set and RANK is not");
        assert!(error(&[("RANK", "2"), ("WORLD_SIZE", "2")]).contains("counted from 0"));
        assert!(error(&[("RANK", "x"), ("WORLD_SIZE", "2")]).contains("RANK=x: it is no number"));
        assert_eq!(error(&TORCHRUN[..3]), "WORLD_SIZE=4, and MASTER_ADDR is not set");
        assert!(error(&[&TORCHRUN[..], &SRUN[..]].concat()).contains("RANK=3, but SLURM_PROCID=2"));
        assert!(error(&[&[("RANK", "0"), ("WORLD_SIZE", "1")], &SRUN[..]].concat()).contains("WORLD_SIZE=1"));
    }

    #[test]
    fn a_size_that_is_not_slurms_is_told_and_torchruns_is_its_own() {
        let with = |rank: &'static str, size: &'static str, more: &[(&'static str, &'static str)]| {
            let mut all = [&TORCHRUN[..], &SRUN[..], more].concat();
            (all[0].1, all[1].1) = (rank, size);
            of(&all)
        };
        let error = |rank, size| with(rank, size, &[]).unwrap_err().to_string();
        assert_eq!(error("1", "2"), "WORLD_SIZE=2, but SLURM_STEP_NUM_TASKS=4");
        assert_eq!(error("1", "8"), "WORLD_SIZE=8, but SLURM_STEP_NUM_TASKS=4");
        assert_eq!(with("2", "4", &[]).unwrap().unwrap().rank, 2);
        // srun starts a torchrun a node.
        let torchrun = [("TORCHELASTIC_RESTART_COUNT", "0")];
        assert_eq!(with("31", "32", &torchrun).unwrap().unwrap().size, 32);
        assert_eq!(with("3", "4", &torchrun).unwrap().unwrap().rank, 3);
        assert!(with("1", "2", &torchrun).is_err());
    }

    #[test]
    fn a_local_rank_beyond_its_machine_is_told() {
        let error = |variables: &[(&str, &str)]| of(variables).unwrap_err().to_string();
        let mut beyond = TORCHRUN;
        beyond[2].1 = "4";
        assert_eq!(error(&beyond), "LOCAL_RANK=4 and WORLD_SIZE=4: ranks are counted from 0");
        let two = [&TORCHRUN[..], &[("LOCAL_WORLD_SIZE", "2")]].concat();
        assert_eq!(of(&two).unwrap().unwrap().local_rank, 1);
        let one = [&TORCHRUN[..], &[("LOCAL_WORLD_SIZE", "1")]].concat();
        assert_eq!(error(&one), "LOCAL_RANK=1 and LOCAL_WORLD_SIZE=1: ranks are counted from 0");
    }

    #[test]
    fn what_is_no_number_is_told_to_one_process_too() {
        let error = |name, value| of(&[("RANK", "0"), ("WORLD_SIZE", "1"), (name, value)]).unwrap_err();
        assert_eq!(error("LOCAL_RANK", "-1").to_string(), "LOCAL_RANK=-1: it is no number");
        assert_eq!(error("MASTER_PORT", "abc").to_string(), "MASTER_PORT=abc: it is no number");
        let zero = error("MASTER_PORT", "0");
        assert_eq!((zero.to_string().as_str(), zero.hint_text().is_some()), ("MASTER_PORT=0: it is no port", true));
    }

    #[test]
    fn a_part_of_the_variables_is_none_of_them() {
        for alone in ["LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"] {
            let failure = of(&[(alone, "1")]).unwrap_err();
            assert_eq!(failure.to_string(), format!("{alone} is set, and RANK and WORLD_SIZE are not"));
        }
        // A batch script of `submit` sets the address for srun, of one task as of several.
        let one = [("MASTER_ADDR", "n1"), ("MASTER_PORT", "20071"), ("SLURM_STEP_NUM_TASKS", "1")];
        let slurm = [("SLURM_JOB_ID", "71"), ("SLURM_PROCID", "0")];
        assert_eq!(of(&[&one[..], &slurm].concat()).unwrap(), None);
    }

    #[test]
    fn a_list_of_nodes_that_ends_early_is_told() {
        let mut cut = SRUN;
        cut[3].1 = "gpu[01-02";
        assert_eq!(of(&cut).unwrap_err().to_string(), "SLURM_STEP_NODELIST=gpu[01-02: it is no list of nodes");
    }

    #[test]
    fn the_first_of_a_list_of_nodes_is_found() {
        for (list, first) in [("n1", "n1"), ("n1,n2", "n1"), ("gpu[03-05,9],login", "gpu03"), ("a,b[1-2]", "a")] {
            assert_eq!(first_host(list), first);
        }
    }
}
