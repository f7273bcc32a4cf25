//! `demo`: the local page.
use std::sync::Arc;

use demo::{Config, LogLine, VisitorLimits};
use model::generate::Generator;
use model::prompts;
use serde_json::{Value, json};

use crate::cli::arguments::DemoArgs;
use crate::cli::generate;
use crate::cli::weights::there;
use crate::common::failure::{Failure, Result};
use crate::common::{digests, loading, progress, signals};
use crate::hub::released;
use crate::launch::device;
use crate::stages::generate::kind;

pub fn run(args: &DemoArgs, json: bool) -> Result<()> {
    let path = there(&args.weights)?;
    let stop = signals::stop_flag()?;
    let prompts = match (&args.prompts, args.free_prompts) {
        (Some(file), _) => generate::prompts(file)?,
        (None, false) if released::knows_prompts(&path) => prompts::published().collect(),
        (None, _) => Vec::new(),
    };
    let device = device::choose(args.on.device)?;
    eprintln!("loads {}", path.display());
    let model = loading::load(&path, None, device)?;
    let generator = Generator::new(&model, kind(device, args.on.precision))?;
    drop(model);
    generator.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));

    let fitting = generator.batch_size_for_memory()?;
    let limits = VisitorLimits {
        at_once: args.at_once.unwrap_or_else(|| VisitorLimits::default().at_once.min(fitting)),
        queue: args.queue,
        body: args.max_body.saturating_mul(1024),
        seconds: args.max_seconds,
        patches: args.max_patches,
        ..VisitorLimits::default()
    };
    if limits.at_once == 0
        || limits.body == 0
        || limits.patches == Some(0)
        || limits.seconds.is_nan()
        || limits.seconds <= 0.0
    {
        return Err(Failure::usage("--at-once, --max-body, --max-patches and --max-seconds are above 0"));
    }
    let config = Config {
        weights: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        sha256: digests::of_file(&path).map_err(|error| Failure::io("read", &path, error))?,
        prompts,
        host: args.host,
        port: args.port,
        limits,
    };
    let log = move |line: &LogLine| {
        eprintln!("{}", line.message);
        if json {
            let mut fields = json!({ "event": line.event, "message": line.message });
            if let (Value::Object(fields), Value::Object(more)) = (&mut fields, &line.fields) {
                fields.extend(more.clone());
            }
            progress::output(&fields);
        }
    };
    demo::serve(config, generator, &stop, Arc::new(log))
        .map_err(|error| Failure::failed(error.to_string()).hint_if(error.hint()))
}
