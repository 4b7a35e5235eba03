// Starts Swagger UI on the description that the server gives of its API.

/** Leave optional fields empty, where Swagger UI would send samples; let files be chosen. */
function forTrying(description) {
  for (const form of Object.values(description.components.schemas)) {
    for (const field of Object.values(form.properties ?? {})) {
      if (field.anyOf && !field.examples) field.example = "";
      if (field.items?.contentMediaType) field.items.format = "binary";
    }
  }
  return description;
}

/** Send no empty field: it is one that was not filled in. */
function withoutEmptyFields(request) {
  const form = request.body;
  if (form instanceof FormData) {
    for (const name of new Set(form.keys())) {
      if (form.getAll(name).every((value) => value === "")) form.delete(name);
    }
  }
  return request;
}

fetch("/api/openapi.json")
  .then((answer) => answer.json())
  .then((description) =>
    SwaggerUIBundle({
      spec: forTrying(description),
      requestInterceptor: withoutEmptyFields,
      dom_id: "#api",
      deepLinking: true,
      tryItOutEnabled: true,
      validatorUrl: null, // no other host is asked
      presets: [SwaggerUIBundle.presets.apis],
      layout: "BaseLayout",
    }),
  );
