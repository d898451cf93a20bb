/** Show /openapi.json by Swagger UI, which is from the package swagger-ui-bundle-v2. */

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  tryItOutEnabled: true,
  // The badge of another site.
  validatorUrl: null,
});
