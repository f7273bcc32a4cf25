//! What the originals publish, and where: told to whoever lacks one of the files.
use std::path::Path;

/// A released weights file: its name, and the Hugging Face repository that holds it.
struct Weights {
    file: &'static str,
    repository: &'static str,
}

const NOTAGEN: &str = "ElectricAlexis/NotaGen";
const CLAMP2: &str = "sander-wood/clamp2";

const WEIGHTS: &[Weights] = &[
    Weights {
        file: "weights_notagen_pretrain_p_size_16_p_length_2048_p_layers_12_c_layers_3_h_size_768_lr_0.0002_batch_8.pth",
        repository: NOTAGEN,
    },
    Weights {
        file: "weights_notagen_pretrain_p_size_16_p_length_2048_p_layers_16_c_layers_3_h_size_1024_lr_0.0001_batch_4.pth",
        repository: NOTAGEN,
    },
    Weights {
        file: "weights_notagen_pretrain_p_size_16_p_length_1024_p_layers_20_c_layers_6_h_size_1280_lr_0.0001_batch_4.pth",
        repository: NOTAGEN,
    },
    Weights {
        file: "weights_notagen_pretrain-finetune_p_size_16_p_length_1024_p_layers_c_layers_6_20_h_size_1280_lr_1e-05_batch_1.pth",
        repository: NOTAGEN,
    },
    Weights {
        file: "weights_notagen_pretrain-finetune-RL3_beta_0.1_lambda_10_p_size_16_p_length_1024_p_layers_20_c_layers_6_h_size_1280_lr_1e-06_batch_1.pth",
        repository: NOTAGEN,
    },
    Weights { file: "weights_notagenx_p_size_16_p_length_1024_p_layers_20_h_size_1280.pth", repository: NOTAGEN },
    Weights {
        file: "weights_clamp2_h_size_768_lr_5e-05_batch_128_scale_1_t_length_128_t_model_FacebookAI_xlm-roberta-base_t_dropout_True_m3_True.pth",
        repository: CLAMP2,
    },
    Weights {
        file: "weights_m3_p_size_64_p_length_512_t_layers_3_p_layers_12_h_size_768_lr_0.0001_batch_16_mask_0.45.pth",
        repository: CLAMP2,
    },
];

const SCHUBERT: &str = "https://drive.google.com/drive/folders/1iVLkcywzXGcHFodce9nDQyEmK4UDmBtY?usp=sharing";

/// Whether the originals publish a weights file of this name: such a file is never overwritten.
pub fn is_released(path: &Path) -> bool {
    named(path).is_some()
}

fn named(path: &Path) -> Option<&'static Weights> {
    let name = path.file_name()?.to_str()?;
    WEIGHTS.iter().find(|weights| weights.file == name)
}

/// Where a file of a Hugging Face repository is read in a browser.
pub fn hugging_face(repository: &str, file: &str) -> String {
    format!("https://huggingface.co/{repository}/blob/main/{file}")
}

/// How to come by a missing file, if the originals publish it.
pub fn where_to_get(path: &Path) -> Option<String> {
    if let Some(weights) = named(path) {
        let url = hugging_face(weights.repository, weights.file);
        return Some(format!("published at {url}; put it at {}", path.display()));
    }
    let text = path.to_string_lossy();
    if path.starts_with("data/schubert_scores") {
        return Some(format!(
            "the scores are OpenScore's Lieder (https://github.com/OpenScore/Lieder) as standard ABC, put them in {text}; \
             or take the original's, preprocessed, from {SCHUBERT} into data/ and start after this stage (--from)"
        ));
    }
    if text.starts_with("data/schubert_") {
        return Some(format!("published at {SCHUBERT}; put it at {text}"));
    }
    if text.starts_with("data/quickstart") {
        return Some("scripts/notagen-train fetches this corpus (scripts/corpus)".to_owned());
    }
    None
}
