//! Extractors for the request's address. One that cannot be read is answered like every other error.
use std::error::Error;

use axum::{
    extract::{
        self, FromRequestParts,
        rejection::{PathRejection, QueryRejection},
    },
    http::{StatusCode, request::Parts},
};

use crate::problem::ApiProblem;

/// A part of the path.
pub struct Path<T>(pub T);

impl<T, S: Sync> FromRequestParts<S> for Path<T>
where
    extract::Path<T>: FromRequestParts<S, Rejection = PathRejection>,
{
    type Rejection = ApiProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, ApiProblem> {
        let found = extract::Path::from_request_parts(parts, state).await;
        found.map(|extract::Path(part)| Path(part)).map_err(|error| bad_address(error.status(), &error))
    }
}

/// The part after the `?`.
pub struct Query<T>(pub T);

impl<T, S: Sync> FromRequestParts<S> for Query<T>
where
    extract::Query<T>: FromRequestParts<S, Rejection = QueryRejection>,
{
    type Rejection = ApiProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Query<T>, ApiProblem> {
        let found = extract::Query::from_request_parts(parts, state).await;
        found.map(|extract::Query(query)| Query(query)).map_err(|error| bad_address(error.status(), &error))
    }
}

fn bad_address(status: StatusCode, error: &dyn Error) -> ApiProblem {
    let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    ApiProblem::new(status, format!("the request's address: {why}")).hint("see /openapi.json")
}
