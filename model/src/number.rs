//! Numbers with a range, as settings have them: reading one outside its range is an error that says where.
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::num::NonZeroU64;

/// Declares a number with a range.
macro_rules! ranged {
    ($(#[$doc:meta])* $name:ident, $holds:expr, $what:literal, $($key:literal = $bound:literal),+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $name(f64);

        impl $name {
            /// The number.
            pub const fn get(self) -> f64 {
                self.0
            }

            /// `A / B`, for the default of a key.
            ///
            /// ```
            /// assert_eq!(model::number::Portion::ratio::<1, 10>().get(), 0.1);
            /// ```
            pub const fn ratio<const A: u32, const B: u32>() -> $name {
                $name(A as f64 / B as f64)
            }

            /// The same for a key that may be null.
            pub const fn some<const A: u32, const B: u32>() -> Option<$name> {
                Some($name::ratio::<A, B>())
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
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
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

/// A count of at least one, for the default of a key.
pub const fn count<const N: u64>() -> NonZeroU64 {
    match NonZeroU64::new(N) {
        Some(count) => count,
        None => NonZeroU64::MIN,
    }
}

/// `N`, for the default of a key.
pub const fn whole<const N: u64>() -> u64 {
    N
}

/// A count of at least one, of what fits in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Count(NonZeroU64);

impl Count {
    /// The count.
    pub const fn get(self) -> usize {
        self.0.get() as usize
    }

    /// `N`, for the default of a key.
    pub const fn of<const N: u64>() -> Count {
        Count(count::<N>())
    }
}

impl Display for Count {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl JsonSchema for Count {
    fn schema_name() -> Cow<'static, str> {
        NonZeroU64::schema_name()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        NonZeroU64::json_schema(generator)
    }
}

/// Reads a number as a type that knows its range.
pub(crate) fn within<'de, T, N, D>(from: D) -> Result<N, D::Error>
where
    T: Deserialize<'de> + TryInto<N, Error: Display>,
    D: Deserializer<'de>,
{
    T::deserialize(from)?.try_into().map_err(D::Error::custom)
}
