/** Show /openapi.json with Swagger UI, from the package swagger-ui-bundle-v2. */

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  tryItOutEnabled: true,
  // No validator badge: another site would serve it.
  validatorUrl: null,
});
