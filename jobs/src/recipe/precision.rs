//! What `precision: auto` comes to on a machine.
use std::env;

use serde::{Deserialize, Serialize};
use trainer::Dtype;

/// What a device multiplies at full speed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Native {
    /// The best for training first; fp32 is always among them.
    pub formats: Vec<Dtype>,
    /// How that is known, for people.
    pub why: String,
}

impl Native {
    /// This machine's processor.
    pub fn of_this_processor() -> Native {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let flags =
            info.lines().find_map(|line| line.strip_prefix("flags")?.split_once(':')).map_or("", |(_, flags)| flags);
        // oneDNN, which multiplies bf16 on a CPU, heeds its variable under both of its names.
        let cap = env::var("ONEDNN_MAX_CPU_ISA").or_else(|_| env::var("DNNL_MAX_CPU_ISA")).ok();
        Native::of_processor(flags, cap.as_deref())
    }

    /// A processor by its flags, as `/proc/cpuinfo` lists them, and the cap on what oneDNN may use of them.
    pub fn of_processor(flags: &str, cap: Option<&str>) -> Native {
        let has = |name: &str| flags.split_whitespace().any(|flag| flag == name);
        let cap = cap.map(str::to_ascii_uppercase);
        let allows = |words: &[&str]| {
            cap.as_deref()
                .is_none_or(|cap| matches!(cap, "ALL" | "DEFAULT") || words.iter().any(|word| cap.contains(word)))
        };
        let amx = has("amx_bf16") && allows(&["AMX"]);
        let avx512 = has("avx512_bf16") && allows(&["BF16", "FP16", "AVX10", "AMX"]);
        let (formats, why) = match (amx, avx512) {
            (true, _) => (vec![Dtype::Bf16, Dtype::Fp32], "the processor multiplies bf16 (AMX)".to_owned()),
            (_, true) => (vec![Dtype::Bf16, Dtype::Fp32], "the processor multiplies bf16 (AVX-512)".to_owned()),
            _ => {
                let why = match cap.as_deref().filter(|_| has("amx_bf16") || has("avx512_bf16")) {
                    Some(cap) => format!("ONEDNN_MAX_CPU_ISA={cap} keeps the processor from multiplying bf16"),
                    None => "the processor does not multiply bf16 (neither AMX nor AVX-512 BF16)".to_owned(),
                };
                (vec![Dtype::Fp32], why)
            }
        };
        Native { formats, why }
    }

    /// A card by its compute capability.
    pub fn of_card(name: &str, (major, minor): (u32, u32)) -> Native {
        let formats = match major {
            8.. => vec![Dtype::Bf16, Dtype::Fp16, Dtype::Fp32],
            _ => vec![Dtype::Fp16, Dtype::Fp32],
        };
        Native { why: format!("{name} has compute capability {major}.{minor}"), formats }
    }

    /// That of a machine which is not known yet.
    pub fn unknown() -> Native {
        Native { formats: Vec::new(), why: "the machine that computes decides; reckoned with fp32".to_owned() }
    }

    /// What all of several devices multiply at full speed.
    pub fn of_all(devices: Vec<Native>) -> Native {
        let Some(first) = devices.first() else { return Native::of_processor("", None) };
        let formats: Vec<Dtype> = first
            .formats
            .iter()
            .copied()
            .filter(|format| devices.iter().all(|device| device.formats.contains(format)))
            .collect();
        let cause = devices.iter().find(|device| device.formats.first() != first.formats.first());
        let why = cause.map_or_else(|| first.why.clone(), |cause| format!("of one process, {}", cause.why));
        Native { formats, why }
    }

    /// What `auto` comes to.
    pub fn best(&self) -> Dtype {
        self.formats.first().copied().unwrap_or_default()
    }

    pub fn multiplies(&self, format: Dtype) -> bool {
        self.formats.contains(&format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPYC_ROME: &str = "fpu sse2 ssse3 fma avx f16c avx2 bmi2";
    const SKYLAKE: &str = "fma avx2 avx512f avx512dq avx512bw avx512vl";
    const ZEN4: &str = "fma avx2 avx512f avx512bw avx512vl avx512_bf16";
    const SAPPHIRE: &str = "fma avx2 avx512f avx512_bf16 avx512_fp16 amx_bf16 amx_tile amx_int8";

    #[test]
    fn auto_is_bf16_where_the_processor_multiplies_it() {
        let best = |flags, cap| Native::of_processor(flags, cap).best();
        for (flags, expected) in [
            (EPYC_ROME, Dtype::Fp32),
            (SKYLAKE, Dtype::Fp32),
            (ZEN4, Dtype::Bf16),
            (SAPPHIRE, Dtype::Bf16),
            ("", Dtype::Fp32),
        ] {
            assert_eq!(best(flags, None), expected, "{flags}");
            assert_eq!(best(flags, Some("ALL")), expected, "{flags}");
        }
        for (cap, zen4, sapphire) in [
            ("AVX2", Dtype::Fp32, Dtype::Fp32),
            ("avx2_vnni_2", Dtype::Fp32, Dtype::Fp32),
            ("AVX512_CORE", Dtype::Fp32, Dtype::Fp32),
            ("AVX512_CORE_BF16", Dtype::Bf16, Dtype::Bf16),
            ("AVX512_CORE_FP16", Dtype::Bf16, Dtype::Bf16),
            ("AVX10_1_512", Dtype::Bf16, Dtype::Bf16),
            ("AVX512_CORE_AMX", Dtype::Bf16, Dtype::Bf16),
        ] {
            assert_eq!((best(ZEN4, Some(cap)), best(SAPPHIRE, Some(cap))), (zen4, sapphire), "{cap}");
        }
        assert!(Native::of_processor(SAPPHIRE, None).why.contains("AMX"));
        assert!(Native::of_processor(SAPPHIRE, Some("avx2")).why.contains("ONEDNN_MAX_CPU_ISA=AVX2"));
    }

    #[test]
    fn on_a_card_auto_follows_its_compute_capability() {
        assert_eq!(Native::of_card("NVIDIA H100", (9, 0)).best(), Dtype::Bf16);
        assert_eq!(Native::of_card("NVIDIA A100", (8, 0)).best(), Dtype::Bf16);
        assert_eq!(Native::of_card("Tesla T4", (7, 5)).best(), Dtype::Fp16);
    }

    #[test]
    fn ranks_take_what_all_of_them_multiply() {
        let [bf16, fp32] = [Native::of_processor(ZEN4, None), Native::of_processor(SKYLAKE, None)];
        assert_eq!(Native::of_all(vec![bf16.clone(), bf16.clone()]), bf16);
        let mixed = Native::of_all(vec![bf16.clone(), fp32.clone()]);
        assert_eq!(mixed.best(), Dtype::Fp32);
        assert!(mixed.why.contains("does not multiply bf16"), "{}", mixed.why);
        assert_eq!(Native::of_all(vec![fp32, bf16]).best(), Dtype::Fp32);
        let cards = [Native::of_card("A100", (8, 0)), Native::of_card("T4", (7, 5))];
        assert_eq!(Native::of_all(cards.to_vec()).best(), Dtype::Fp16);
    }
}
