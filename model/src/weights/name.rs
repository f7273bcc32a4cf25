//! The original's file names: `weights_notagen_TAG_p_size_16_p_length_1024_…_batch_1.pth`.

use std::path::Path;

use super::Error;
use crate::Architecture;
use crate::m3::M3Architecture;

/// The original's name for weights, from its `config.py`.
///
/// ```
/// use model::{Architecture, weights};
/// let name = weights::file_name("pretrain", &Architecture::small(), 2e-4, 8);
/// assert!(name.starts_with("weights_notagen_pretrain_p_size_16_p_length_2048_p_layers_12_"));
/// assert_eq!(weights::FileName::parse(name.as_ref()).learning_rate, Some(2e-4));
/// ```
pub fn file_name(tag: &str, architecture: &Architecture, learning_rate: f64, batch_size: i64) -> String {
    let (sizes, rate) = (sizes(architecture), python_float(learning_rate));
    format!("weights_notagen_{tag}_{sizes}_lr_{rate}_batch_{batch_size}.pth")
}

/// The original's name for weights of CLaMP-DPO, from `RL/config.py`. Its `LAMBDA` is a whole number: `10`, not `10.0`.
pub fn dpo_file_name(tag: &str, architecture: &Architecture, beta: f64, lambda: f64, learning_rate: f64) -> String {
    let (sizes, rate, beta) = (sizes(architecture), python_float(learning_rate), python_float(beta));
    let lambda = python_float(lambda);
    let lambda = lambda.strip_suffix(".0").unwrap_or(&lambda);
    format!("weights_notagen_{tag}_beta_{beta}_lambda_{lambda}_{sizes}_lr_{rate}.pth")
}

fn sizes(architecture: &Architecture) -> String {
    let Architecture { patch_size, patch_length, patch_layers, char_layers, hidden_size, .. } = architecture;
    format!(
        "p_size_{patch_size}_p_length_{patch_length}_p_layers_{patch_layers}_c_layers_{char_layers}_h_size_{hidden_size}"
    )
}

/// The original's name for the weights of an M3, from the `config.py` of CLaMP 2.
pub fn m3_file_name(architecture: &M3Architecture, learning_rate: f64, batch_size: i64, mask_ratio: f64) -> String {
    let M3Architecture { patch_size, patch_length, patch_layers, token_layers, hidden_size, .. } = architecture;
    format!(
        "weights_m3_p_size_{patch_size}_p_length_{patch_length}_t_layers_{token_layers}_p_layers_{patch_layers}\
         _h_size_{hidden_size}_lr_{}_batch_{batch_size}_mask_{}.pth",
        python_float(learning_rate),
        python_float(mask_ratio)
    )
}

/// A number as Python's `str(float)` writes it: `0.0002`, `1e-05`, `1.0`.
pub fn python_float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent @ -4..16) => {
            let _ = exponent;
            format!("{number:?}").replace("e0", "")
        }
        Ok(exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        Err(_) => format!("{number:?}"),
    }
}

/// What a file name says. Two released files have odd names: one lists `p_layers_c_layers_6_20`, one
/// leaves `c_layers` out. DPO's numbers stand in the names of CLaMP-DPO's weights alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FileName {
    /// Characters in a patch.
    pub patch_size: Option<i64>,
    /// Patches.
    pub patch_length: Option<i64>,
    /// Layers of the patch-level decoder.
    pub patch_layers: Option<i64>,
    /// Layers of the character-level decoder.
    pub char_layers: Option<i64>,
    /// Width.
    pub hidden_size: Option<i64>,
    /// DPO's beta.
    pub beta: Option<f64>,
    /// DPO-positive's lambda.
    pub lambda: Option<f64>,
    /// Learning rate.
    pub learning_rate: Option<f64>,
}

impl FileName {
    /// Reads the sizes in the name of a file.
    pub fn parse(path: &Path) -> Self {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let words: Vec<&str> = stem.split('_').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<i64>().ok());
        let float = |at: usize| words.get(at).and_then(|word| word.parse::<f64>().ok());
        let find = |pattern: &[&str]| words.windows(pattern.len()).position(|window| window == pattern);
        let after = |pattern: &[&str]| number(find(pattern)? + pattern.len());
        let float_after = |word: &str| float(find(&[word])? + 1);
        let mut name = Self {
            patch_size: after(&["p", "size"]),
            patch_length: after(&["p", "length"]),
            patch_layers: after(&["p", "layers"]),
            char_layers: after(&["c", "layers"]),
            hidden_size: after(&["h", "size"]),
            beta: float_after("beta"),
            lambda: float_after("lambda"),
            learning_rate: float_after("lr"),
        };
        if let Some(at) = find(&["p", "layers", "c", "layers"]) {
            name.patch_layers = number(at + 5);
        }
        name
    }
}

/// Compares what a file's name says with what its tensors say.
///
/// # Errors
/// [`Error::Name`] for the first size that differs.
pub fn check_name(path: &Path, architecture: &Architecture) -> Result<(), Error> {
    let name = FileName::parse(path);
    let sizes = [
        ("p_length", name.patch_length, architecture.patch_length),
        ("p_size", name.patch_size, architecture.patch_size),
        ("p_layers", name.patch_layers, architecture.patch_layers),
        ("c_layers", name.char_layers, architecture.char_layers),
        ("h_size", name.hidden_size, architecture.hidden_size),
    ];
    for (field, named, found) in sizes {
        if let Some(named) = named.filter(|named| *named != found) {
            return Err(Error::Name { path: path.to_path_buf(), field, named, found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_does() {
        let pairs = [
            (1e-5, "1e-05"),
            (0.0002, "0.0002"),
            (1e-4, "0.0001"),
            (1.5e-5, "1.5e-05"),
            (1.0, "1.0"),
            (0.0, "0.0"),
            (-2.5, "-2.5"),
            (1e16, "1e+16"),
            (123456789012345.0, "123456789012345.0"),
            (1e-100, "1e-100"),
            (0.1 + 0.2, "0.30000000000000004"),
        ];
        for (number, text) in pairs {
            assert_eq!(python_float(number), text);
        }
    }

    #[test]
    fn names_are_the_originals() {
        assert_eq!(
            file_name("pretrain", &Architecture::small(), 0.0002, 8),
            "weights_notagen_pretrain_p_size_16_p_length_2048_p_layers_12_c_layers_3_h_size_768_lr_0.0002_batch_8.pth"
        );
        assert_eq!(
            file_name("pretrain-finetune-RL3_beta_0.1_lambda_10", &Architecture::large(), 1e-6, 1),
            "weights_notagen_pretrain-finetune-RL3_beta_0.1_lambda_10_p_size_16_p_length_1024_p_layers_20_c_layers_6_h_size_1280_lr_1e-06_batch_1.pth"
        );
    }

    #[test]
    fn names_of_dpo_are_the_originals_and_say_its_numbers() {
        let name = dpo_file_name("schubert-RL1", &Architecture::large(), 0.1, 10.0, 1e-6);
        assert_eq!(
            name,
            "weights_notagen_schubert-RL1_beta_0.1_lambda_10_p_size_16_p_length_1024_p_layers_20_c_layers_6_h_size_1280_lr_1e-06.pth"
        );
        let parsed = FileName::parse(Path::new(&name));
        assert_eq!((parsed.beta, parsed.lambda, parsed.learning_rate), (Some(0.1), Some(10.0), Some(1e-6)));
        check_name(Path::new(&name), &Architecture::large()).unwrap();
        assert!(check_name(Path::new(&name), &Architecture::small()).is_err());
        assert!(dpo_file_name("x", &Architecture::large(), 1.0, 2.5, 1e-5).contains("_beta_1.0_lambda_2.5_p_size"));
    }

    #[test]
    fn the_name_of_an_m3_is_the_originals() {
        assert_eq!(
            m3_file_name(&M3Architecture::default(), 1e-4, 16, 0.45),
            "weights_m3_p_size_64_p_length_512_t_layers_3_p_layers_12_h_size_768_lr_0.0001_batch_16_mask_0.45.pth"
        );
    }

    #[test]
    fn names_of_all_released_weights_agree_with_their_sizes() {
        let check = |name: &str, architecture| check_name(Path::new(name), &architecture).unwrap();
        check(
            "checkpoints/weights_notagen_pretrain_p_size_16_p_length_2048_p_layers_12_c_layers_3_h_size_768_lr_0.0002_batch_8.pth",
            Architecture::small(),
        );
        check(
            "weights_notagen_pretrain_p_size_16_p_length_2048_p_layers_16_c_layers_3_h_size_1024_lr_0.0001_batch_4.pth",
            Architecture::medium(),
        );
        check(
            "weights_notagen_pretrain-finetune_p_size_16_p_length_1024_p_layers_c_layers_6_20_h_size_1280_lr_1e-05_batch_1.pth",
            Architecture::large(),
        );
        check("weights_notagenx_p_size_16_p_length_1024_p_layers_20_h_size_1280.pth", Architecture::large());
        check("anything.pth", Architecture::large());
        let odd = FileName::parse(Path::new("w_p_layers_c_layers_6_20_h_size_1280_lr_1e-05.pth"));
        assert_eq!((odd.patch_layers, odd.char_layers, odd.hidden_size), (Some(20), Some(6), Some(1280)));
    }

    #[test]
    fn a_name_that_contradicts_the_tensors_is_told() {
        let path = Path::new("weights_notagen_x_p_size_16_p_length_2048_p_layers_20_c_layers_6_h_size_1280.pth");
        let error = check_name(path, &Architecture::large()).unwrap_err();
        assert!(matches!(error, Error::Name { field: "p_length", named: 2048, found: 1024, .. }));
    }
}
