/** The Standard Schema interface, by which validators of other libraries are used. */

/**
 * A validator: what zod, valibot, arktype, Effect Schema and others give, by the [Standard Schema](https://standardschema.dev) interface.
 *
 * @category models
 * @since 0.1.0
 */
export interface StandardSchema<Input = unknown, Output = Input> {
  readonly "~standard": {
    readonly version: 1
    readonly vendor: string
    readonly validate: (value: unknown) => ValidationResult<Output> | Promise<ValidationResult<Output>>
    readonly types?: { readonly input: Input; readonly output: Output } | undefined
  }
}

/**
 * The result of a validator: the value, or what is wrong with it.
 *
 * @category models
 * @since 0.1.0
 */
export type ValidationResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: ReadonlyArray<ValidationIssue> }

/**
 * One thing that a validator found wrong, and its place in the payload.
 *
 * @category models
 * @since 0.1.0
 */
export interface ValidationIssue {
  readonly message: string
  readonly path?: ReadonlyArray<PropertyKey | { readonly key: PropertyKey }> | undefined
}
