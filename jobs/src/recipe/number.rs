//! Numbers with a range, and the defaults of keys.
use std::num::NonZeroU64;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Declares a number with a range: reading one outside it is an error that says where.
macro_rules! ranged {
    ($(#[$doc:meta])* $name:ident, $holds:expr, $what:literal, $($key:literal = $bound:literal),+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $name(f64);

        impl $name {
            pub fn get(self) -> f64 {
                self.0
            }
        }

        impl TryFrom<f64> for $name {
            type Error = String;

            fn try_from(number: f64) -> Result<$name, String> {
                let holds: fn(f64) -> bool = $holds;
                if number.is_finite() && holds(number) {
                    Ok($name(number))
                } else {
                    Err(format!("{number} is not {}", $what))
                }
            }
        }

        impl From<$name> for f64 {
            fn from(number: $name) -> f64 {
                number.0
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "number", $($key: $bound),+ })
            }
        }
    };
}

ranged!(
    /// A number above 0.
    Positive, |number| number > 0.0, "above 0", "exclusiveMinimum" = 0
);
ranged!(
    /// A number of at least 0.
    #[derive(Default)]
    NonNegative, |number| number >= 0.0, "at least 0", "minimum" = 0
);
ranged!(
    /// A number from 0 to 1.
    Portion, |number| (0.0..=1.0).contains(&number), "between 0 and 1", "minimum" = 0, "maximum" = 1
);

/// Declares functions that give the defaults of keys.
macro_rules! defaults {
    ($($name:ident: $type:ty = $value:expr;)+) => { $(pub fn $name() -> $type { $value })+ };
}

defaults! {
    eval_split: Portion = Portion(0.1);
    tenth: Portion = Portion(0.1);
    weight_decay: NonNegative = NonNegative(0.01);
    top_k: u64 = 9;
    top_p: Portion = Portion(0.9);
    temperature: Positive = Positive(1.2);
    similarity_limit: Portion = Portion(0.95);
    beta: Positive = Positive(0.1);
    lambda: NonNegative = NonNegative(10.0);
    dpo_learning_rate: Positive = Positive(1e-6);
    dpo_max_grad_norm: Option<Positive> = Some(Positive(1.0));
    one: NonZeroU64 = count(1);
    two: NonZeroU64 = count(2);
    three: NonZeroU64 = count(3);
    four: NonZeroU64 = count(4);
    ten: NonZeroU64 = count(10);
    twelve: NonZeroU64 = count(12);
    most_bars: Option<Portion> = Some(Portion(0.8));
    two_minutes: Positive = Positive(120.0);
    hundredth: Portion = Portion(0.01);
    mask_ratio: Portion = Portion(0.45);
    m3_patch_length: NonZeroU64 = count(512);
    m3_hidden_size: NonZeroU64 = count(768);
    thousand_steps: u64 = 1000;
    yes: bool = true;
    checkpoint_every: NonZeroU64 = count(500);
    thousand: NonZeroU64 = count(1000);
    ten_thousand: NonZeroU64 = count(10_000);
}

/// A count of at least one.
pub const fn count(number: u64) -> NonZeroU64 {
    match NonZeroU64::new(number) {
        Some(count) => count,
        None => NonZeroU64::MIN,
    }
}
