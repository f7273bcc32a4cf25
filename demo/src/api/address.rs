//! What a request's address says; one that cannot be read is answered as everything else that is wrong.
use std::error::Error;

use axum::{
    extract::{
        self, FromRequestParts,
        rejection::{PathRejection, QueryRejection},
    },
    http::{StatusCode, request::Parts},
};

use super::problem::Problem;

/// A part of the path.
pub struct Path<T>(pub T);

impl<T, S: Sync> FromRequestParts<S> for Path<T>
where
    extract::Path<T>: FromRequestParts<S, Rejection = PathRejection>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, Problem> {
        let found = extract::Path::from_request_parts(parts, state).await;
        found.map(|extract::Path(part)| Path(part)).map_err(|error| wrong(error.status(), &error))
    }
}

/// What comes after the `?`.
pub struct Query<T>(pub T);

impl<T, S: Sync> FromRequestParts<S> for Query<T>
where
    extract::Query<T>: FromRequestParts<S, Rejection = QueryRejection>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Query<T>, Problem> {
        let found = extract::Query::from_request_parts(parts, state).await;
        found.map(|extract::Query(query)| Query(query)).map_err(|error| wrong(error.status(), &error))
    }
}

fn wrong(status: StatusCode, error: &dyn Error) -> Problem {
    let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    Problem::new(status, format!("the request's address: {why}")).hint("see /openapi.json")
}
