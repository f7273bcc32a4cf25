//! The batch scripts: one a stage, and one more for a stage in shards. They run under sbatch and under bash alike.
use std::fmt::Write;
use std::path::PathBuf;

use crate::cluster::shape::JobShape;
use crate::common::failure::{Failure, Result};
use crate::recipe::Resources;

/// Seconds before the end of a job's time in which it saves: a large checkpoint on a slow file system takes minutes.
const SAVING: u64 = 300;

/// A batch script to be.
#[derive(Debug)]
pub struct Script {
    pub run: String,
    pub stage: String,
    /// Its place among the stages, from 1, and their number.
    pub place: (usize, usize),
    /// Where it lies, relative to the working directory.
    pub path: PathBuf,
    /// The recipe that it runs, with every default filled in.
    pub recipe: PathBuf,
    pub working_directory: PathBuf,
    pub program: PathBuf,
    /// What it asks for, with nothing left to the recipe.
    pub resources: Resources,
    pub shape: JobShape,
    pub max_restarts: u64,
}

impl Script {
    /// The text of the script.
    ///
    /// # Errors
    /// A time or an option that Slurm would not take.
    pub fn text(&self) -> Result<String> {
        let mut text = String::from("#!/usr/bin/env bash\n");
        self.comment(&mut text);
        for option in self.options()? {
            let _ = writeln!(text, "#SBATCH {option}");
        }
        let shard = match self.shape {
            JobShape::Shards { count, .. } => {
                format!(" ${{SLURM_ARRAY_TASK_ID:+--shard \"$SLURM_ARRAY_TASK_ID/{count}\"}}")
            }
            JobShape::Whole { .. } => String::new(),
        };
        let job = match self.shape {
            JobShape::Shards { .. } => "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID",
            JobShape::Whole { .. } => "$SLURM_JOB_ID",
        };
        let _ = write!(
            text,
            r#"
set -u
cd {folder} || exit 1
program=${{NOTAGEN_TRAIN:-{program}}}

if [ "${{SLURM_RESTART_COUNT:-0}}" -gt {max_restarts} ]; then
    echo "stage {stage}: restarted {max_restarts} times, and given up (--max-restarts)" >&2
    exit 1
fi

# In a job srun starts the processes; each finds its place in Slurm's environment, and the first at this address.
launch=
if [ -n "${{SLURM_JOB_ID:-}}" ]; then
    launch="srun --kill-on-bad-exit=1"
    first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    MASTER_ADDR=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
    MASTER_PORT=$((20000 + SLURM_JOB_ID % 12000))
    export MASTER_ADDR MASTER_PORT
    if [ -n "${{SLURM_CPUS_PER_TASK:-}}" ]; then
        export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
    fi
fi

$launch "$program" {recipe} --only {stage}{shard} &
worker=$!

# Slurm sends USR1 when the time is nearly up, and TERM when it takes the job away: the program saves and leaves with 75.
taken=
trap 'kill -USR1 "$worker"' USR1 INT
trap 'taken=yes; kill -USR1 "$worker"' TERM
while wait "$worker"; code=$?; kill -0 "$worker" 2>/dev/null; do :; done

# Saved (75) or killed (above 128), it goes on in another job, unless Slurm sees to that itself.
if [ -n "${{SLURM_JOB_ID:-}}" ] && [ -z "$taken" ] && {{ [ $code = 75 ] || [ $code -gt 128 ]; }}; then
    echo "stage {stage}: ended with $code, goes on in another job" >&2
    scontrol requeue "{job}"
fi
exit $code
"#,
            folder = quoted(&self.working_directory.to_string_lossy()),
            program = quoted(&self.program.to_string_lossy()),
            recipe = quoted(&self.recipe.to_string_lossy()),
            stage = self.stage,
            max_restarts = self.max_restarts,
        );
        Ok(text)
    }

    fn comment(&self, text: &mut String) {
        let (run, stage, path) = (&self.run, &self.stage, self.path.display());
        let (place, of) = self.place;
        let _ = match self.shape {
            JobShape::Whole { .. } => writeln!(
                text,
                "# Stage {stage} of the run {run}, {place} of {of}, by notagen-train. It needs the stages before it to be done."
            ),
            JobShape::Shards { count, .. } => writeln!(
                text,
                "# Stage {stage} of the run {run}, {place} of {of}, by notagen-train: its pieces in {count} shares. A job after\n\
                 # them runs the stage itself, finds the pieces there, and records it."
            ),
        };
        let _ = writeln!(
            text,
            "# By hand: `sbatch {path}` on a cluster, `bash {path}` on this machine.\n\
             # Run again, it goes on from its last checkpoint; once done, it does nothing."
        );
    }

    /// The options of sbatch, those of the recipe's `extra` last, so that they win.
    fn options(&self) -> Result<Vec<String>> {
        let mut options = vec![
            format!("--job-name={}/{}", self.run, self.stage),
            format!("--chdir={}", quoted(&self.working_directory.to_string_lossy())),
        ];
        let log = |id: &str| {
            let path = self.working_directory.join(&self.path).with_extension("");
            format!("--output={}", quoted(&format!("{}-{id}.log", path.display())))
        };
        let gpus = match self.shape {
            JobShape::Whole { nodes, tasks_per_node, gpus_per_node } => {
                options.push(log("%j"));
                options.push(format!("--nodes={nodes}"));
                options.push(format!("--ntasks-per-node={tasks_per_node}"));
                gpus_per_node
            }
            JobShape::Shards { count, gpus } => {
                options.push(log("%A_%a"));
                options.push(format!("--array=0-{}", count.saturating_sub(1)));
                options.push("--nodes=1".to_owned());
                options.push("--ntasks=1".to_owned());
                gpus
            }
        };
        options.push("--open-mode=append".to_owned());
        if gpus > 0 {
            options.push(format!("--gpus-per-node={gpus}"));
        }
        let mut saving = SAVING;
        if let Some(time) = &self.resources.time {
            let seconds = seconds(time).ok_or_else(|| {
                Failure::usage(format!("`{time}` is not a time of Slurm's"))
                    .hint("minutes, hours:minutes:seconds, days-hours, days-hours:minutes:seconds or UNLIMITED")
            })?;
            saving = saving.min(seconds / 4);
            options.push(format!("--time={time}"));
        }
        for (key, value) in [("partition", &self.resources.partition), ("account", &self.resources.account)] {
            if let Some(value) = value {
                if value.contains(['\n', '\r']) {
                    return Err(Failure::usage(format!("the {key} `{value}` has a line break in it")));
                }
                options.push(format!("--{key}={}", quoted(value)));
            }
        }
        options.push("--requeue".to_owned());
        options.push(format!("--signal=B:USR1@{saving}"));
        for option in self.resources.extra.iter().flatten() {
            if !option.starts_with('-') || option.contains(['\n', '\r']) {
                return Err(Failure::usage(format!("`resources.extra`: `{option}` is no option of sbatch"))
                    .hint("write extra: [\"--cpus-per-task=8\", \"--constraint=a100\"]"));
            }
            options.push(quoted(option));
        }
        Ok(options)
    }
}

/// The seconds of a time as Slurm writes it; a time without end is a long one.
fn seconds(time: &str) -> Option<u64> {
    if ["UNLIMITED", "INFINITE"].iter().any(|word| time.eq_ignore_ascii_case(word)) {
        return Some(u64::MAX);
    }
    let numbers = |text: &str| text.split(':').map(|part| part.parse::<u64>().ok()).collect::<Option<Vec<_>>>();
    let (days, rest) = match time.split_once('-') {
        Some((days, rest)) => (Some(days.parse::<u64>().ok()?), numbers(rest)?),
        None => (None, numbers(time)?),
    };
    let [hours, minutes, seconds] = match (days, rest.as_slice()) {
        (Some(_), [hours]) => [*hours, 0, 0],
        (Some(_), [hours, minutes]) => [*hours, *minutes, 0],
        (None, [minutes]) => [0, *minutes, 0],
        (None, [minutes, seconds]) => [0, *minutes, *seconds],
        (_, [hours, minutes, seconds]) => [*hours, *minutes, *seconds],
        _ => return None,
    };
    let hours = days.unwrap_or(0).checked_mul(24)?.checked_add(hours)?;
    hours.checked_mul(60)?.checked_add(minutes)?.checked_mul(60)?.checked_add(seconds)
}

/// A word for the shell, and for sbatch, which reads quotes alike.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@%,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_slurm_reads_them() {
        for (time, expected) in [
            ("30", 1800),
            ("1:30", 90),
            ("02:00:00", 7200),
            ("1-12", 129_600),
            ("1-0:30", 88_200),
            ("2-0:0:1", 172_801),
        ] {
            assert_eq!(seconds(time), Some(expected), "{time}");
        }
        for time in ["", "soon", "1:2:3:4", "1-", "-5", "1-1-1"] {
            assert_eq!(seconds(time), None, "{time}");
        }
    }

    #[test]
    fn words_are_quoted_where_the_shell_would_take_them_apart() {
        assert_eq!(quoted("/a/b-c.yaml"), "/a/b-c.yaml");
        assert_eq!(quoted("/a b/$c"), "'/a b/$c'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
