//! A process's place among the others, as torchrun, srun or a person wrote it into the environment.
use std::net::ToSocketAddrs;

use crate::failure::{Failure, Result};

/// A rank and where it meets the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub rank: usize,
    pub size: usize,
    /// The rank on this machine: the number of its device.
    pub local_rank: usize,
    pub host: String,
    pub port: u16,
    /// Whether this rank keeps the store that all meet at.
    pub serve: bool,
    /// Tells this attempt's keys in the store from those of others.
    pub prefix: String,
    /// Who said so.
    pub source: &'static str,
}

/// The place that variables give, if they give one.
///
/// # Errors
/// A usage failure that says which variables are missing, are no numbers or contradict each other.
pub fn find(get: impl Fn(&str) -> Option<String>) -> Result<Option<Place>> {
    let get = |name: &str| get(name).filter(|value| !value.is_empty());
    let number = |name: &str| -> Result<Option<usize>> {
        let Some(text) = get(name) else { return Ok(None) };
        let number = text.parse().map_err(|_| Failure::usage(format!("{name}={text}: it is no number")))?;
        Ok(Some(number))
    };
    let slurm = number("SLURM_STEP_NUM_TASKS")?.filter(|&tasks| tasks > 1);
    let slurm = slurm.zip(number("SLURM_PROCID")?);
    let (rank, world) = (number("RANK")?, number("WORLD_SIZE")?);
    match (rank, world, slurm) {
        (None, None, None) => Ok(None),
        (None, None, Some((size, rank))) => of_slurm(rank, size, &get, &number).map(Some),
        (Some(rank), Some(size), slurm) => {
            if rank >= size {
                return Err(Failure::usage(format!("RANK={rank} and WORLD_SIZE={size}: ranks are counted from 0"))
                    .hint("unset both, and start with --nproc"));
            }
            match slurm {
                Some((tasks, task)) if tasks == size && task != rank => {
                    return Err(Failure::usage(format!("RANK={rank}, but SLURM_PROCID={task}: the same rank twice"))
                        .hint("under srun leave RANK and WORLD_SIZE unset: Slurm's numbers count"));
                }
                Some((tasks, task)) if size == 1 => {
                    return Err(Failure::usage(format!(
                        "WORLD_SIZE=1, but SLURM_STEP_NUM_TASKS={tasks}: task {task} would run the whole recipe beside the others"
                    ))
                    .hint("unset RANK and WORLD_SIZE, or srun --ntasks=1"));
                }
                _ => {}
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
        _ => Err(Failure::usage(format!("MASTER_PORT={port}: it is no port"))),
    }
}

fn of_torchrun(
    rank: usize,
    size: usize,
    get: &impl Fn(&str) -> Option<String>,
    number: &impl Fn(&str) -> Result<Option<usize>>,
) -> Result<Place> {
    let missing = |name: &str| {
        Failure::usage(format!("WORLD_SIZE={size}, and {name} is not set"))
            .hint("RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT go together: torchrun sets them, and so does --nproc")
    };
    let local_rank = number("LOCAL_RANK")?.map_or_else(|| number("SLURM_LOCALID"), |rank| Ok(Some(rank)))?;
    let agent = get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True");
    Ok(Place {
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
) -> Result<Place> {
    let (job, step) = (number("SLURM_JOB_ID")?.unwrap_or(0), number("SLURM_STEP_ID")?.unwrap_or(0));
    // Below the ports that systems give to connections.
    let port = port(number)?.unwrap_or(20_000 + ((job + step) % 12_000) as u16);
    let first = get("SLURM_STEP_NODELIST").or_else(|| get("SLURM_NODELIST")).map(|list| first_host(&list));
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
    Ok(Place {
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

    fn of(variables: &[(&str, &str)]) -> Result<Option<Place>> {
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
    fn the_first_of_a_list_of_nodes_is_found() {
        for (list, first) in [("n1", "n1"), ("n1,n2", "n1"), ("gpu[03-05,9],login", "gpu03"), ("a,b[1-2]", "a")] {
            assert_eq!(first_host(list), first);
        }
    }
}
