//! How stages are declared: keys of their own, and groups of keys (`trainer::params`) among them.

/// Declares a struct of keys; `keys!` has put those of groups in.
macro_rules! declare {
    ({ $(#[$about:meta])* $name:ident } $($(#[$($meta:tt)*])* $key:ident: $type:ty,)*) => {
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        $(#[$about])*
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$($meta)*])* pub $key: $type,)*
        }
    };
}
pub(super) use declare;

/// Declares the keys of a stage, behind those that every stage has.
macro_rules! stage {
    ($(#[$about:meta])* $name:ident { $($keys:tt)* }) => {
        trainer::keys! { @ declare { $(#[$about])* $name } {}
            /// The name of the stage (its kind).
            #[schemars(extend("effect" = "none"))]
            name: Option<String>,
            /// What the stage asks of a cluster, before the recipe's `resources`.
            #[schemars(extend("effect" = "none"))]
            resources: Option<Resources>,
            $($keys)*
        }
    };
}
pub(super) use stage;
